-- The limit is on real paths: (none), of journeys without any stage, and (other) come on top.
with
sizes as (
    select path, count(*) as journey_count
    from journeys
    where path is not null
    group by path
),

ranked as (
    select path, row_number() over (order by journey_count desc, path) as size_rank
    from sizes
),

named as (
    select
        case
            when journeys.path is null then '(none)'
            when ranked.size_rank <= parameters.path_limit then journeys.path
            else '(other)'
        end as path,
        journeys.status,
        seconds_between(journeys.started_at, journeys.ended_at) as duration_seconds,
        journeys.time_to_convert_seconds
    from journeys
    left join ranked on ranked.path = journeys.path
    cross join parameters
),

counted as (
    select
        path,
        count(*) as journey_count,
        count(*) filter (where status = 'converted') as converted_count,
        count(*) filter (where status in ('converted', 'abandoned')) as decided_count,
        percentile_cont(0.5) within group (order by duration_seconds) as median_seconds,
        percentile_cont(0.5) within group (order by time_to_convert_seconds) as median_seconds_to_convert
    from named
    group by path
)

select
    path,
    journey_count,
    converted_count,
    safe_ratio(converted_count, decided_count) as conversion_ratio,
    median_seconds,
    decided_count,
    wilson_low(converted_count, decided_count) as conversion_ratio_low,
    wilson_high(converted_count, decided_count) as conversion_ratio_high,
    median_seconds_to_convert
from counted
