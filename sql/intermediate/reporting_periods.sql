-- Every day, week and month of the reporting calendar that has begun by data_as_of.
with
begun as (
    select distinct
        periods.period,
        period_start(calendar_days.local_day, periods.period, parameters.week_starts_on) as period_start_date
    from calendar_days
    cross join periods
    cross join parameters
)

select
    begun.period,
    begun.period_start_date,
    local_midnight(
        period_add(begun.period_start_date, begun.period, 1), parameters.reporting_timezone
    ) <= parameters.data_as_of as is_complete
from begun
cross join parameters
