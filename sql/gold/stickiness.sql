-- How many customers were active on how many days of each week and month.
with
counted as (
    select period_start_date, period, active_day_count as active_days, count(*) as customer_count
    from active_periods
    where period <> 'day'
    group by period_start_date, period, active_day_count
)

select
    counted.period_start_date,
    counted.period,
    counted.active_days,
    counted.customer_count,
    case when reporting_periods.is_complete then safe_ratio(
        counted.customer_count,
        sum(counted.customer_count) over (partition by counted.period, counted.period_start_date)
    ) end as customer_share,
    reporting_periods.is_complete
from counted
inner join reporting_periods
    on
        reporting_periods.period = counted.period
        and reporting_periods.period_start_date = counted.period_start_date
