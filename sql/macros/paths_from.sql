-- Where journeys go after something: from its first occurrence in each journey, the next values of one level.
create or replace macro paths_from(start, steps := 3, level := 'event_type', collapse := true) as table
with
checked as (
    select
        case
            when level in ('event_type', 'channel', 'stage') then true
            else error('paths_from: level is event_type, channel or stage')
        end
        and case when steps >= 1 then true else error('paths_from: steps is a number from 1') end as is_valid
),

valued as (
    select
        touchpoints.journey_id, touchpoints.occurred_at, touchpoints.event_id,
        case level
            when 'event_type' then touchpoints.event_type
            when 'channel' then touchpoints.channel
            else touchpoints.stage
        end as value
    from touchpoints
    where touchpoints.direction = 'inbound' and touchpoints.journey_id is not null
),

-- Touchpoints without a value (no stage) do not count; equal ones in a row count as one, unless told otherwise.
compared as (
    select
        *,
        lag(value) over (partition by journey_id order by occurred_at, event_id) as previous_value
    from valued
    where value is not null
),

walks as (
    select
        journey_id,
        list(value order by occurred_at, event_id) as path_values,
        list(occurred_at order by occurred_at, event_id) as times
    from compared
    where not collapse or value is distinct from previous_value
    group by journey_id
    having bool_or(value = start)
),

-- From the start on: at most `steps` more. A journey that ends before says how it stands.
continuations as (
    select
        journeys.status,
        list_position(walks.path_values, start) as first_position,
        len(walks.path_values) as length,
        walks.path_values[list_position(walks.path_values, start):list_position(walks.path_values, start) + steps]
            as path_values,
        walks.times[list_position(walks.path_values, start):list_position(walks.path_values, start) + steps] as times
    from walks
    inner join journeys on journeys.journey_id = walks.journey_id
),

paths as (
    select
        array_to_string(path_values, ' > ')
        || case when length < first_position + steps then ' > (' || status || ')' else '' end as path,
        count(*) as journey_count,
        count(*) filter (where status = 'converted') as converted_count,
        quantile_cont(seconds_between(times[1], times[-1]), 0.5) as median_seconds
    from continuations
    inner join checked on checked.is_valid
    group by path
)

select
    path,
    journey_count,
    safe_ratio(journey_count, sum(journey_count) over ()) as share,
    wilson_low(journey_count, sum(journey_count) over ()) as share_low,
    wilson_high(journey_count, sum(journey_count) over ()) as share_high,
    converted_count,
    safe_ratio(converted_count, journey_count) as conversion_ratio,
    median_seconds
from paths
order by journey_count desc, path
