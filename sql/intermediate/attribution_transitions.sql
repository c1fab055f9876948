-- The Markov chain's arrows, counted: from the start to a path's first touch, from touch to touch, and to its end.
with
steps as (
    select
        level, is_converted, touch_index, touch_count, touch,
        lag(touch) over (partition by level, is_converted, path_id order by touch_index) as previous_touch
    from attribution_touches
),

arrows as (
    select level, previous_touch as from_touch, touch as to_touch, cast(null as boolean) as is_converted
    from steps
    union all
    select level, touch as from_touch, cast(null as string) as to_touch, is_converted
    from steps
    where touch_index = touch_count
)

select
    level,
    from_touch,
    to_touch,
    is_converted,
    count(*) as transition_count
from arrows
group by level, from_touch, to_touch, is_converted
