-- The build's own definitions, for what reads the published tables: the macros, reports, notebooks.
select
    data_as_of,
    reporting_timezone,
    week_starts_on,
    reporting_currency,
    journey_timeout_seconds,
    conversion_window_seconds,
    customer_conversion_window_seconds,
    churn_days,
    breakdown_limit,
    day_intervals,
    week_intervals,
    month_intervals
from parameters
