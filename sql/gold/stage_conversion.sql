-- Of those who entered a stage, how many went on, may still, or dropped: by the period in which the journey (customer)
-- began and by one breakdown at a time.
with measured as (
    select
        stage_entries.scope, stage_entries.stage, stage_entries.stage_index, stage_entries.outcome,
        stage_entries.is_ordered,
        seconds_between(stage_entries.entered_at, stage_entries.advanced_at) as seconds_to_advance,
        cohort_members.cohort_date as day_date,
        period_start(cohort_members.cohort_date, 'week', parameters.week_starts_on) as week_date,
        period_start(cohort_members.cohort_date, 'month', parameters.week_starts_on) as month_date,
        cohort_members.channel, cohort_members.source, cohort_members.medium, cohort_members.campaign,
        cohort_members.segment, cohort_members.experiment_variant, cohort_members.revenue
    from stage_entries
    inner join cohort_members
        on cohort_members.scope = stage_entries.scope
        and cohort_members.entity_key = stage_entries.entity_key
    cross join parameters
),

-- Periods times breakdowns in one pass; the values are never NULL, so a NULL after it means "not grouped by".
grouped as (
    select
        scope, stage, stage_index, day_date, week_date, month_date,
        channel, source, medium, campaign, segment, experiment_variant,
        count(*) as entered_count,
        count_where(outcome = 'advanced') as advanced_count,
        count_where(outcome = 'active') as active_count,
        count_where(outcome = 'dropped') as dropped_count,
        count_where(is_ordered) as ordered_count,
        count(outcome) as judged_count,
        percentile_linear(seconds_to_advance, 0.5) as median_seconds_to_advance,
        percentile_linear(seconds_to_advance, 0.9) as p90_seconds_to_advance,
        sum(revenue) as revenue
    from measured
    group by
        scope, stage, stage_index,
        grouping sets ((day_date), (week_date), (month_date), ()),
        grouping sets ((channel), (source), (medium), (campaign), (segment), (experiment_variant), ())
),

labelled as (
    select
        *,
        case
            when day_date is not null then 'day'
            when week_date is not null then 'week'
            when month_date is not null then 'month'
            else 'all'
        end as period,
        case
            when channel is not null then 'channel'
            when source is not null then 'source'
            when medium is not null then 'medium'
            when campaign is not null then 'campaign'
            when segment is not null then 'segment'
            when experiment_variant is not null then 'experiment_variant'
            else 'none'
        end as breakdown
    from grouped
)

-- The last stage has nothing to advance to: nobody in it is judged.
select
    scope,
    coalesce(day_date, week_date, month_date) as period_start_date,
    period,
    breakdown,
    coalesce(channel, source, medium, campaign, segment, experiment_variant, '(all)') as breakdown_value,
    stage,
    stage_index,
    entered_count,
    case when judged_count > 0 then advanced_count end as advanced_count,
    case when judged_count > 0 then active_count end as active_count,
    case when judged_count > 0 then dropped_count end as dropped_count,
    ordered_count,
    safe_ratio(advanced_count, advanced_count + dropped_count) as conversion_ratio,
    wilson_low(advanced_count, advanced_count + dropped_count) as conversion_ratio_low,
    wilson_high(advanced_count, advanced_count + dropped_count) as conversion_ratio_high,
    safe_ratio(dropped_count, advanced_count + dropped_count) as drop_off_ratio,
    median_seconds_to_advance,
    p90_seconds_to_advance,
    cast(revenue as decimal(18, 2)) as revenue
from labelled
