-- The touchpoints of decided journeys before their conversion: states of a chain, each with the one it leads to.
with
states as (
    select
        journey_walk.journey_id,
        journey_walk.step_index,
        journeys.status,
        coalesce(journey_walk.stage, '(none)') as stage,
        journey_walk.channel,
        journey_walk.event_type,
        coalesce(journey_walk.next_stage, '(none)') as next_stage,
        journey_walk.next_channel,
        journey_walk.next_event_type,
        journey_walk.is_next_conversion
    from journey_walk
    inner join journeys on journeys.journey_id = journey_walk.journey_id
    where journeys.status in ('converted', 'abandoned') and journey_walk.is_before_conversion
)

select
    journey_id,
    step_index,
    stage,
    channel,
    event_type,
    stage || ' / ' || channel || ' / ' || event_type as state,
    case
        when next_event_type is null or is_next_conversion then '(' || status || ')'
        else next_stage || ' / ' || next_channel || ' / ' || next_event_type
    end as next_state,
    status = 'converted' as is_converted
from states
