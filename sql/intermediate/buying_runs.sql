-- The spells in which each customer kept buying: orders of which each came within churn_days of the one before.
with
timed_orders as (
    select
        orders.customer_key,
        orders.ordered_at,
        orders.event_id,
        add_seconds(orders.ordered_at, cast(parameters.churn_days as bigint) * 86400) as runs_out_at
    from orders
    cross join parameters
),

spaced_orders as (
    select
        customer_key,
        ordered_at,
        event_id,
        runs_out_at,
        lag(runs_out_at) over (partition by customer_key order by ordered_at, event_id) as earlier_runs_out_at
    from timed_orders
),

numbered_orders as (
    select
        customer_key,
        ordered_at,
        runs_out_at,
        sum(case when earlier_runs_out_at is null or ordered_at > earlier_runs_out_at then 1 else 0 end) over (
            partition by customer_key order by ordered_at, event_id
            rows between unbounded preceding and current row
        ) as run_number
    from spaced_orders
)

select
    numbered_orders.customer_key,
    cast(numbered_orders.run_number as bigint) as run_number,
    min(numbered_orders.ordered_at) as began_at,
    case
        when max(numbered_orders.runs_out_at) <= parameters.data_as_of then max(numbered_orders.runs_out_at)
    end as ran_out_at,
    count(*) as order_count
from numbered_orders
cross join parameters
group by numbered_orders.customer_key, numbered_orders.run_number, parameters.data_as_of
