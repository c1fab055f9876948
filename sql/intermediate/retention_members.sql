-- Who started, by every definition of retention: one member per definition and customer.
with
started as (
    select 'first_order' as start_event, customer_key, ordered_at as started_at, event_id as start_event_id
    from orders
    where order_index = 1
    union all
    select
        'first_touch' as start_event, touchpoints.customer_key, touchpoints.occurred_at as started_at,
        min(touchpoints.event_id) as start_event_id
    from touchpoints
    inner join customers
        on customers.customer_key = touchpoints.customer_key and customers.first_touch_at = touchpoints.occurred_at
    where touchpoints.direction = 'inbound'
    group by touchpoints.customer_key, touchpoints.occurred_at
)

select
    row_number() over (
        order by retention_definitions.start_event, retention_definitions.return_event, started.customer_key
    ) as member_number,
    retention_definitions.start_event,
    retention_definitions.return_event,
    started.customer_key,
    started.started_at,
    started.start_event_id,
    local_date(started.started_at, parameters.reporting_timezone) as start_date
from started
inner join retention_definitions on retention_definitions.start_event = started.start_event
cross join parameters
