-- The steps of every journey on three levels: each touchpoint's event type, each run of one channel, each stage visit.
with
-- Stage visits are runs of one stage already; a run of one channel starts where the channel changes.
runs as (
    select 'channel' as level, journey_id, step_index as place, channel as value, occurred_at as entered_at
    from journey_walk
    where previous_channel is null or previous_channel <> channel
    union all
    select 'stage' as level, journey_id, visit_index as place, stage as value, entered_at
    from stage_visits
),

steps as (
    select
        'event_type' as level, journey_id, step_index, event_type as value, next_event_type as next_value,
        seconds_between(occurred_at, next_at) as seconds_to_next
    from journey_walk
    union all
    select
        level, journey_id, row_number() over in_journey as step_index, value, lead(value) over in_journey as next_value,
        seconds_between(entered_at, lead(entered_at) over in_journey) as seconds_to_next
    from runs
    window in_journey as (partition by level, journey_id order by place)
)

select
    steps.level,
    steps.journey_id,
    steps.step_index,
    steps.value,
    coalesce(steps.next_value, '(' || journeys.status || ')') as next_value,
    steps.seconds_to_next
from steps
inner join journeys on journeys.journey_id = steps.journey_id
