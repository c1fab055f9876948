-- Whether journeys with a touchpoint convert more often than those without it: an association, not a cause.
with
decided as (
    select journey_id, status, ended_at
    from journeys
    where status in ('converted', 'abandoned')
),

conversions as (
    select journey_id, occurred_at, event_id
    from touchpoints
    where is_conversion
),

-- Before the conversion, or not after the end. A proxy that opens an e-mail touches nobody.
seen as (
    select distinct
        touchpoints.channel,
        touchpoints.event_type,
        decided.journey_id,
        decided.status
    from touchpoints
    inner join decided on decided.journey_id = touchpoints.journey_id
    left join conversions on conversions.journey_id = decided.journey_id
    where
        not coalesce(touchpoints.is_machine_open, false)
        and (
            (decided.status = 'abandoned' and touchpoints.occurred_at <= decided.ended_at)
            or (decided.status = 'converted' and touchpoints.occurred_at < conversions.occurred_at)
            or (
                decided.status = 'converted'
                and touchpoints.occurred_at = conversions.occurred_at
                and touchpoints.event_id < conversions.event_id
            )
        )
),

journey_counts as (
    select count(*) as journey_count, count(*) filter (where status = 'converted') as converted_count
    from decided
),

with_counts as (
    select
        channel,
        event_type,
        count(*) as journey_count,
        count(*) filter (where status = 'converted') as converted_count
    from seen
    group by channel, event_type
),

counted as (
    select
        with_counts.channel,
        with_counts.event_type,
        with_counts.journey_count as journeys_with,
        with_counts.converted_count as converted_with,
        journey_counts.journey_count - with_counts.journey_count as journeys_without,
        journey_counts.converted_count - with_counts.converted_count as converted_without
    from with_counts
    cross join journey_counts
)

select
    channel,
    event_type,
    journeys_with,
    converted_with,
    journeys_without,
    converted_without,
    safe_ratio(converted_with, journeys_with) - safe_ratio(converted_without, journeys_without) as lift,
    newcombe_low(converted_with, journeys_with, converted_without, journeys_without) as lift_low,
    newcombe_high(converted_with, journeys_with, converted_without, journeys_without) as lift_high,
    safe_ratio(converted_with, journeys_with) as conversion_ratio_with,
    safe_ratio(converted_without, journeys_without) as conversion_ratio_without
from counted
