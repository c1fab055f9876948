-- One sort of the touchpoints for everything that asks what follows what in a journey.
select
    journey_id,
    row_number() over in_journey as step_index,
    channel,
    event_type,
    stage,
    occurred_at,
    lag(channel) over in_journey as previous_channel,
    lead(channel) over in_journey as next_channel,
    lead(event_type) over in_journey as next_event_type,
    lead(stage) over in_journey as next_stage,
    lead(occurred_at) over in_journey as next_at,
    lead(is_conversion) over in_journey as is_next_conversion,
    max(case when is_conversion then 1 else 0 end) over up_to_here = 0 as is_before_conversion
from touchpoints
where direction = 'inbound' and journey_id is not null
window
    in_journey as (partition by journey_id order by occurred_at, event_id),
    up_to_here as (
        partition by journey_id order by occurred_at, event_id rows between unbounded preceding and current row
    )
