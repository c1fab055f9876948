-- Who touched each stage in each channel, by what, and how many of those journeys converted.
with
staged as (
    select stage_index, channel, event_type, customer_key, journey_id
    from touchpoints
    where customer_key is not null and stage_index is not null
),

event_counts as (
    select
        stage_index,
        channel,
        event_type,
        count(*) as touchpoint_count
    from staged
    group by stage_index, channel, event_type
),

ranked_events as (
    select
        stage_index,
        channel,
        event_type,
        touchpoint_count,
        row_number() over (
            partition by stage_index, channel order by touchpoint_count desc, event_type
        ) as place
    from event_counts
),

touchpoint_counts as (
    select
        stage_index,
        channel,
        cast(sum(touchpoint_count) as bigint) as touchpoint_count,
        max(case when place = 1 then event_type end)
        || coalesce(', ' || max(case when place = 2 then event_type end), '')
        || coalesce(', ' || max(case when place = 3 then event_type end), '') as top_event_types
    from ranked_events
    group by stage_index, channel
),

touched_journeys as (
    select distinct stage_index, channel, customer_key, journey_id
    from staged
),

journey_counts as (
    select
        touched_journeys.stage_index,
        touched_journeys.channel,
        count(distinct touched_journeys.customer_key) as customer_count,
        count(*) filter (where journeys.status in ('converted', 'abandoned')) as decided_count,
        count(*) filter (where journeys.status = 'converted') as converted_count
    from touched_journeys
    left join journeys on journeys.journey_id = touched_journeys.journey_id
    group by touched_journeys.stage_index, touched_journeys.channel
)

select
    touchpoint_counts.stage_index,
    touchpoint_counts.channel,
    journey_counts.customer_count,
    touchpoint_counts.touchpoint_count,
    touchpoint_counts.top_event_types,
    journey_counts.decided_count,
    journey_counts.converted_count
from touchpoint_counts
inner join journey_counts
    on
        journey_counts.stage_index = touchpoint_counts.stage_index
        and journey_counts.channel = touchpoint_counts.channel
