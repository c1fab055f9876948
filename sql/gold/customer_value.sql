-- What the customers who first ordered in a period have spent since, cumulated by interval.
with
first_orders as (
    select orders.customer_key, min(local_date(orders.ordered_at, parameters.reporting_timezone)) as first_order_date
    from orders
    cross join parameters
    group by orders.customer_key
),

day_revenues as (
    select
        first_orders.first_order_date,
        local_date(orders.ordered_at, parameters.reporting_timezone) as order_date,
        coalesce(sum(orders.revenue), 0) as revenue
    from orders
    inner join first_orders on first_orders.customer_key = orders.customer_key
    cross join parameters
    group by first_orders.first_order_date, local_date(orders.ordered_at, parameters.reporting_timezone)
),

cohorts as (
    select
        periods.period,
        periods.interval_count,
        period_start(first_orders.first_order_date, periods.period, parameters.week_starts_on)
            as cohort_start_date,
        count(*) as customer_count
    from first_orders
    cross join periods
    cross join parameters
    group by
        periods.period, periods.interval_count,
        period_start(first_orders.first_order_date, periods.period, parameters.week_starts_on)
),

interval_revenues as (
    select
        periods.period,
        period_start(day_revenues.first_order_date, periods.period, parameters.week_starts_on)
            as cohort_start_date,
        period_start(day_revenues.order_date, periods.period, parameters.week_starts_on) as order_start_date,
        sum(day_revenues.revenue) as revenue
    from day_revenues
    cross join periods
    cross join parameters
    group by
        periods.period,
        period_start(day_revenues.first_order_date, periods.period, parameters.week_starts_on),
        period_start(day_revenues.order_date, periods.period, parameters.week_starts_on)
),

-- The intervals that have begun by data_as_of.
cells as (
    select
        cohorts.period, cohorts.cohort_start_date, cohorts.customer_count,
        interval_numbers.number as interval_index,
        reporting_periods.period_start_date, reporting_periods.is_complete
    from cohorts
    inner join interval_numbers on interval_numbers.number < cohorts.interval_count
    inner join reporting_periods
        on
            reporting_periods.period = cohorts.period
            and reporting_periods.period_start_date = period_add(
                cohorts.cohort_start_date, cohorts.period, interval_numbers.number
            )
),

cumulated as (
    select
        cells.cohort_start_date, cells.period, cells.interval_index, cells.customer_count, cells.is_complete,
        case when cells.is_complete then sum(coalesce(interval_revenues.revenue, 0)) over (
            partition by cells.period, cells.cohort_start_date order by cells.interval_index
            rows between unbounded preceding and current row
        ) end as cumulative_revenue
    from cells
    left join interval_revenues
        on
            interval_revenues.period = cells.period
            and interval_revenues.cohort_start_date = cells.cohort_start_date
            and interval_revenues.order_start_date = cells.period_start_date
)

select
    cohort_start_date,
    period,
    interval_index,
    customer_count,
    cast(cumulative_revenue as decimal(18, 2)) as cumulative_revenue,
    amount_per(cumulative_revenue, customer_count) as cumulative_revenue_per_customer,
    is_complete
from cumulated
