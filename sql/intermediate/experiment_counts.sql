-- What came of the customers assigned to each variant, once their time to convert has passed.
with
views as (
    select
        experiment,
        variant,
        customer_key,
        occurred_at,
        event_id,
        row_number() over (partition by experiment, customer_key order by occurred_at, event_id) as view_index,
        min(variant) over (partition by experiment, customer_key)
        <> max(variant) over (partition by experiment, customer_key) as is_excluded
    from touchpoints
    where event_type = 'experiment_viewed' and customer_key is not null
),

assignments as (
    select
        views.experiment, views.variant, views.customer_key, views.occurred_at as assigned_at, views.event_id,
        views.is_excluded,
        add_seconds(views.occurred_at, parameters.conversion_window_seconds) as window_ends_at,
        add_seconds(views.occurred_at, parameters.conversion_window_seconds) >= parameters.data_as_of as is_pending
    from views
    cross join parameters
    where views.view_index = 1
),

purchases as (
    select
        assignments.experiment,
        assignments.customer_key,
        count(*) as order_count,
        sum(orders.revenue) as revenue
    from assignments
    inner join orders
        on
            orders.customer_key = assignments.customer_key
            and orders.ordered_at <= assignments.window_ends_at
            and (
                orders.ordered_at > assignments.assigned_at
                or (orders.ordered_at = assignments.assigned_at and orders.event_id > assignments.event_id)
            )
    group by assignments.experiment, assignments.customer_key
),

outcomes as (
    select
        assignments.experiment,
        assignments.variant,
        case
            when assignments.is_excluded then 'excluded'
            when assignments.is_pending then 'pending'
            when purchases.order_count > 0 then 'converted'
            else 'not_converted'
        end as outcome,
        purchases.revenue
    from assignments
    left join purchases
        on purchases.experiment = assignments.experiment and purchases.customer_key = assignments.customer_key
),

-- A variant that nobody saw first is a variant too.
variants as (
    select distinct experiment, variant from views
)

select
    variants.experiment,
    variants.variant,
    variants.variant = coalesce(experiment_definitions.control_variant, 'control') as is_control,
    count(*) filter (where outcomes.outcome in ('converted', 'not_converted')) as customer_count,
    count(*) filter (where outcomes.outcome = 'converted') as converted_count,
    count(*) filter (where outcomes.outcome = 'pending') as pending_count,
    count(*) filter (where outcomes.outcome = 'excluded') as excluded_count,
    cast(coalesce(sum(outcomes.revenue) filter (where outcomes.outcome = 'converted'), 0) as decimal(18, 2)) as revenue
from variants
left join outcomes on outcomes.experiment = variants.experiment and outcomes.variant = variants.variant
left join experiment_definitions on experiment_definitions.experiment = variants.experiment
group by variants.experiment, variants.variant, experiment_definitions.control_variant
