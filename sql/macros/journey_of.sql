-- Everything one customer did and got, in order, with what it was part of.
create or replace macro journey_of(customer) as table
select
    touchpoints.occurred_at,
    touchpoints.channel,
    touchpoints.event_type,
    touchpoints.direction,
    touchpoints.stage,
    touchpoints.lifecycle_stage,
    journeys.journey_index,
    journeys.status as journey_status,
    seconds_between(
        lag(touchpoints.occurred_at) over (order by touchpoints.occurred_at, touchpoints.event_id),
        touchpoints.occurred_at
    ) as seconds_from_previous,
    touchpoints.is_friction,
    touchpoints.source,
    touchpoints.medium,
    touchpoints.campaign,
    touchpoints.page_path,
    touchpoints.product_id,
    touchpoints.order_id,
    touchpoints.ticket_id,
    touchpoints.amount,
    touchpoints.currency,
    touchpoints.customer_order_index,
    touchpoints.session_id,
    touchpoints.journey_id,
    touchpoints.event_id
from touchpoints
left join journeys on journeys.journey_id = touchpoints.journey_id
where touchpoints.customer_key = customer
order by touchpoints.occurred_at, touchpoints.event_id
