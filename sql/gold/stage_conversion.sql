with
measured as (
    select
        stage_entries.scope,
        stage_entries.stage_index,
        stage_entries.outcome,
        stage_entries.is_in_order,
        stage_entries.seconds_to_advance,
        stage_entries.revenue,
        stage_entries.cohort_date as day_date,
        period_start(stage_entries.cohort_date, 'week', parameters.week_starts_on) as week_date,
        period_start(stage_entries.cohort_date, 'month', parameters.week_starts_on) as month_date,
        breakdown_values.breakdown,
        breakdown_values.breakdown_value
    from stage_entries
    inner join breakdown_values
        on
            breakdown_values.scope = stage_entries.scope
            and breakdown_values.entity_id = stage_entries.entity_id
    cross join parameters
),

-- All four periods in one pass; a date is never NULL, so a NULL here means "not grouped by".
counted as (
    select
        scope,
        stage_index,
        day_date,
        week_date,
        month_date,
        breakdown,
        breakdown_value,
        count(*) as entered_count,
        count(*) filter (where outcome = 'advanced') as advanced_count,
        count(*) filter (where outcome = 'active') as active_count,
        count(*) filter (where outcome = 'dropped') as dropped_count,
        count(*) filter (where is_in_order) as ordered_count,
        count(outcome) as judged_count,
        percentile_cont(0.5) within group (order by seconds_to_advance) as median_seconds_to_advance,
        percentile_cont(0.9) within group (order by seconds_to_advance) as p90_seconds_to_advance,
        sum(revenue) as revenue
    from measured
    group by
        scope, stage_index, breakdown, breakdown_value,
        grouping sets ((day_date), (week_date), (month_date), ())
)

-- Nobody in the last stage is judged: there is nothing to advance to.
select
    counted.scope,
    coalesce(counted.day_date, counted.week_date, counted.month_date) as period_start_date,
    case
        when counted.day_date is not null then 'day'
        when counted.week_date is not null then 'week'
        when counted.month_date is not null then 'month'
        else 'all'
    end as period,
    counted.breakdown,
    counted.breakdown_value,
    stage_definitions.stage,
    counted.stage_index,
    counted.entered_count,
    case when counted.judged_count > 0 then counted.advanced_count end as advanced_count,
    case when counted.judged_count > 0 then counted.active_count end as active_count,
    case when counted.judged_count > 0 then counted.dropped_count end as dropped_count,
    counted.ordered_count,
    safe_ratio(counted.advanced_count, counted.advanced_count + counted.dropped_count) as conversion_ratio,
    wilson_low(counted.advanced_count, counted.advanced_count + counted.dropped_count) as conversion_ratio_low,
    wilson_high(counted.advanced_count, counted.advanced_count + counted.dropped_count) as conversion_ratio_high,
    safe_ratio(counted.dropped_count, counted.advanced_count + counted.dropped_count) as drop_off_ratio,
    counted.median_seconds_to_advance,
    counted.p90_seconds_to_advance,
    cast(counted.revenue as decimal(18, 2)) as revenue
from counted
inner join stage_definitions on stage_definitions.stage_index = counted.stage_index
