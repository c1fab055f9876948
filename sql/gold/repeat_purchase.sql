-- How many of the customers who first ordered in a period have ordered again, on another day, by data_as_of.
with
spaced_orders as (
    select
        customer_key,
        ordered_at,
        lag(ordered_at) over (partition by customer_key order by ordered_at, event_id) as previous_ordered_at
    from orders
),

customer_orders as (
    select
        orders.customer_key,
        min(local_date(orders.ordered_at, parameters.reporting_timezone)) as first_order_date,
        count(*) as order_count,
        count(distinct local_date(orders.ordered_at, parameters.reporting_timezone)) as order_day_count
    from orders
    cross join parameters
    group by orders.customer_key
),

members as (
    select
        customer_orders.customer_key,
        customer_orders.order_count,
        customer_orders.order_day_count,
        periods.period,
        period_start(customer_orders.first_order_date, periods.period, parameters.week_starts_on) as cohort_start_date
    from customer_orders
    cross join periods
    cross join parameters
),

counted as (
    select
        cohort_start_date,
        period,
        count(*) as customer_count,
        count(*) filter (where order_day_count >= 2) as repeat_customer_count,
        count(*) filter (where order_count >= 2) as repeat_by_order_count,
        cast(sum(order_count) as bigint) as order_count
    from members
    group by cohort_start_date, period
),

gaps as (
    select
        members.cohort_start_date,
        members.period,
        percentile_cont(0.5) within group (
            order by seconds_between(spaced_orders.previous_ordered_at, spaced_orders.ordered_at) / 86400
        ) as median_days_between_orders
    from members
    inner join spaced_orders on spaced_orders.customer_key = members.customer_key
    where spaced_orders.previous_ordered_at is not null
    group by members.cohort_start_date, members.period
)

select
    counted.cohort_start_date,
    counted.period,
    counted.customer_count,
    counted.repeat_customer_count,
    counted.repeat_by_order_count,
    safe_ratio(counted.repeat_customer_count, counted.customer_count) as repeat_ratio,
    safe_ratio(counted.order_count, counted.customer_count) as orders_per_customer,
    gaps.median_days_between_orders,
    wilson_low(counted.repeat_customer_count, counted.customer_count) as repeat_ratio_low,
    wilson_high(counted.repeat_customer_count, counted.customer_count) as repeat_ratio_high,
    counted.order_count,
    reporting_periods.is_complete
from counted
inner join reporting_periods
    on
        reporting_periods.period = counted.period
        and reporting_periods.period_start_date = counted.cohort_start_date
left join gaps on gaps.cohort_start_date = counted.cohort_start_date and gaps.period = counted.period
