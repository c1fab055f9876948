-- When each customer was active, that is, had an inbound touchpoint: by day, week and month of the reporting calendar.
with
active_days as (
    select
        touchpoints.customer_key,
        local_date(touchpoints.occurred_at, parameters.reporting_timezone) as active_date,
        max(case when touchpoints.channel = 'email' then 1 else 0 end) as used_email,
        max(case when touchpoints.channel = 'store' then 1 else 0 end) as used_store,
        max(case when touchpoints.channel = 'support' then 1 else 0 end) as used_support,
        max(case when touchpoints.channel = 'web' then 1 else 0 end) as used_web
    from touchpoints
    cross join parameters
    where touchpoints.direction = 'inbound' and touchpoints.customer_key is not null
    group by touchpoints.customer_key, local_date(touchpoints.occurred_at, parameters.reporting_timezone)
),

active_periods as (
    select
        active_days.customer_key,
        periods.period,
        period_start(active_days.active_date, periods.period, parameters.week_starts_on) as period_start_date,
        count(*) as active_day_count,
        max(active_days.used_email) as used_email,
        max(active_days.used_store) as used_store,
        max(active_days.used_support) as used_support,
        max(active_days.used_web) as used_web
    from active_days
    cross join periods
    cross join parameters
    group by
        active_days.customer_key, periods.period,
        period_start(active_days.active_date, periods.period, parameters.week_starts_on)
)

select
    customer_key,
    period,
    period_start_date,
    lag(period_start_date) over (partition by customer_key, period order by period_start_date) as previous_start_date,
    lead(period_start_date) over (partition by customer_key, period order by period_start_date) as next_start_date,
    active_day_count,
    used_email,
    used_store,
    used_support,
    used_web
from active_periods
