-- The funnel: how many came to each step, how soon, and what their orders were worth. Its attempts are those of
-- `funnel_attempts`, which holds the definition.
create or replace $kind $name(
    steps,
    within := null,
    mode := 'default',
    counting := 'unique',
    hold := null,
    exclude := [],
    exclude_after := 1,
    exclude_before := null,
    breakdown := null,
    breakdown_at := 'first_touch',
    since := null,
    until := null,
    touches := 'inbound'
) as table
with
step_names as (
    select
        unnest(steps) as name,
        generate_subscripts(steps, 1) as step
),

step_counts as (
    select
        breakdown_value, step,
        count(*) as reached_count,
        count(*) filter (where is_open) as open_count,
        quantile_cont(seconds_from_previous, [0.5, 0.9]) as seconds_from_previous,
        quantile_cont(seconds_from_first, [0.5, 0.9]) filter (where step > 1) as seconds_from_first,
        sum(revenue) as revenue
    from $attempts(
        steps, within := within, mode := mode, counting := counting, hold := hold,
        exclude := exclude, exclude_after := exclude_after, exclude_before := exclude_before,
        breakdown := breakdown, breakdown_at := breakdown_at, since := since, until := until, touches := touches
    )
    group by breakdown_value, step
),

-- Every step of every value, also those that nobody came to.
all_steps as (
    select
        breakdown_values.breakdown_value, step_names.step,
        case when mode <> 'unordered' then step_names.name else 'any ' || step_names.step end as name,
        coalesce(step_counts.reached_count, 0) as reached_count,
        coalesce(step_counts.open_count, 0) as open_count,
        step_counts.seconds_from_previous, step_counts.seconds_from_first,
        coalesce(step_counts.revenue, 0) as revenue
    from (
        select breakdown_value from step_counts
        union
        select '(all)' as breakdown_value where breakdown is null
    ) as breakdown_values
    cross join step_names
    left join step_counts
        on step_counts.breakdown_value = breakdown_values.breakdown_value and step_counts.step = step_names.step
),

compared as (
    select
        *,
        first_value(reached_count) over walk as first_count,
        lag(reached_count) over walk as previous_count
    from all_steps
    window walk as (partition by breakdown_value order by step)
)

select
    breakdown_value,
    step,
    name,
    reached_count,
    safe_ratio(reached_count, first_count) as conversion_from_first,
    wilson_low(reached_count, first_count) as conversion_from_first_low,
    wilson_high(reached_count, first_count) as conversion_from_first_high,
    safe_ratio(reached_count, previous_count) as conversion_from_previous,
    wilson_low(reached_count, previous_count) as conversion_from_previous_low,
    wilson_high(reached_count, previous_count) as conversion_from_previous_high,
    open_count,
    seconds_from_previous[1] as median_seconds_from_previous,
    seconds_from_previous[2] as p90_seconds_from_previous,
    seconds_from_first[1] as median_seconds_from_first,
    seconds_from_first[2] as p90_seconds_from_first,
    cast(revenue as decimal(18, 2)) as revenue
from compared
order by breakdown_value, step
