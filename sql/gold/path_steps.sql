with
limited as (
    select
        journey_steps.level,
        journey_steps.step_index,
        journey_steps.value,
        journey_steps.next_value,
        count(*) as next_count
    from journey_steps
    inner join parameters on journey_steps.step_index <= parameters.path_step_limit
    group by journey_steps.level, journey_steps.step_index, journey_steps.value, journey_steps.next_value
),

counted as (
    select
        level,
        step_index,
        value,
        cast(sum(next_count) over (partition by level, step_index, value) as bigint) as journey_count,
        next_value,
        next_count
    from limited
)

select
    level,
    step_index,
    value,
    journey_count,
    next_value,
    next_count,
    safe_ratio(next_count, journey_count) as next_share
from counted
