-- Of the customers who had bought in the churn_days before a period: how many let that time run out in it.
with
placed_runs as (
    select
        periods.period,
        period_start(
            local_date(buying_runs.began_at, parameters.reporting_timezone), periods.period, parameters.week_starts_on
        ) as began_in,
        period_start(
            local_date(buying_runs.ran_out_at, parameters.reporting_timezone), periods.period, parameters.week_starts_on
        ) as ran_out_in
    from buying_runs
    cross join periods
    cross join parameters
),

-- Who began and ran out in one and the same period was never in a base.
changes as (
    select period, began_in as period_start_date, count(*) as gained_count, 0 as churned_count
    from placed_runs
    where ran_out_in is null or began_in < ran_out_in
    group by period, began_in
    union all
    select period, ran_out_in as period_start_date, 0 as gained_count, count(*) as churned_count
    from placed_runs
    where began_in < ran_out_in
    group by period, ran_out_in
),

changed as (
    select
        reporting_periods.period,
        reporting_periods.period_start_date,
        reporting_periods.is_complete,
        sum(coalesce(changes.gained_count, 0)) as gained_count,
        sum(coalesce(changes.churned_count, 0)) as churned_count
    from reporting_periods
    left join changes
        on
            changes.period = reporting_periods.period
            and changes.period_start_date = reporting_periods.period_start_date
    group by reporting_periods.period, reporting_periods.period_start_date, reporting_periods.is_complete
),

-- A run lasts into every period after the one it began in, up to the one it ran out in.
counted as (
    select
        period_start_date,
        period,
        is_complete,
        cast(churned_count as bigint) as churned_customer_count,
        cast(sum(gained_count - churned_count) over (
            partition by period order by period_start_date rows between unbounded preceding and 1 preceding
        ) as bigint) as active_customer_count
    from changed
)

select
    period_start_date,
    period,
    active_customer_count,
    churned_customer_count,
    case when is_complete then safe_ratio(churned_customer_count, active_customer_count) end as churn_ratio,
    case when is_complete then wilson_low(churned_customer_count, active_customer_count) end as churn_ratio_low,
    case when is_complete then wilson_high(churned_customer_count, active_customer_count) end as churn_ratio_high,
    is_complete
from counted
where active_customer_count > 0
