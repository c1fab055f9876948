with
levels as (
    select 'event_type' as level
    union all
    select 'channel' as level
    union all
    select 'stage' as level
),

-- A journey without a step, as one without any stage, goes from its start straight to its end.
starts as (
    select
        levels.level,
        '(start)' as from_value,
        coalesce(journey_steps.value, '(' || journeys.status || ')') as to_value,
        cast(null as double) as seconds_to_next
    from journeys
    cross join levels
    left join journey_steps
        on
            journey_steps.level = levels.level
            and journey_steps.journey_id = journeys.journey_id
            and journey_steps.step_index = 1
),

moves as (
    select level, from_value, to_value, seconds_to_next
    from starts
    union all
    select level, value as from_value, next_value as to_value, seconds_to_next
    from journey_steps
),

counted as (
    select
        level,
        from_value,
        to_value,
        count(*) as transition_count,
        percentile_cont(0.5) within group (order by seconds_to_next) as median_seconds
    from moves
    group by level, from_value, to_value
)

select
    level,
    from_value,
    to_value,
    transition_count,
    safe_ratio(transition_count, sum(transition_count) over (partition by level, from_value)) as share,
    median_seconds
from counted
