-- How many customers were new, returning, resurrected, dormant or inactive in each period.
with
-- A customer's states, but for inactive: that is everyone known who has no other.
states as (
    select
        period,
        period_start_date,
        case
            when previous_start_date is null then 'new'
            when previous_start_date = period_add(period_start_date, period, -1) then 'returning'
            else 'resurrected'
        end as state
    from active_periods
    union all
    select period, period_add(period_start_date, period, 1) as period_start_date, 'dormant' as state
    from active_periods
    where next_start_date is null or next_start_date > period_add(period_start_date, period, 1)
),

state_counts as (
    select period, period_start_date, state, count(*) as customer_count
    from states
    group by period, period_start_date, state
),

period_counts as (
    select
        period,
        period_start_date,
        sum(customer_count) as stated_count,
        sum(case when state = 'new' then customer_count else 0 end) as new_count
    from state_counts
    group by period, period_start_date
),

-- Everyone who was new by the period's end is known in it, in a period that nobody touched too.
known_counts as (
    select
        reporting_periods.period,
        reporting_periods.period_start_date,
        coalesce(period_counts.stated_count, 0) as stated_count,
        sum(coalesce(period_counts.new_count, 0)) over (
            partition by reporting_periods.period order by reporting_periods.period_start_date
            rows between unbounded preceding and current row
        ) as known_count
    from reporting_periods
    left join period_counts
        on
            period_counts.period = reporting_periods.period
            and period_counts.period_start_date = reporting_periods.period_start_date
),

counted as (
    select period, period_start_date, state, customer_count from state_counts
    union all
    select period, period_start_date, 'inactive' as state, known_count - stated_count as customer_count
    from known_counts
    where known_count > stated_count
)

select
    counted.period_start_date,
    counted.period,
    counted.state,
    cast(counted.customer_count as bigint) as customer_count,
    reporting_periods.is_complete
from counted
inner join reporting_periods
    on
        reporting_periods.period = counted.period
        and reporting_periods.period_start_date = counted.period_start_date
