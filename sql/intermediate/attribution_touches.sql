-- The touches of every path on every level: a session's value, consecutive equal ones as one.
with
path_values as (
    select
        attribution_paths.is_converted,
        attribution_paths.path_id,
        attribution_paths.converted_at,
        attribution_paths.revenue,
        sessions.session_id,
        sessions.started_at,
        sessions.source is null as is_direct,
        sessions.channel,
        concat(coalesce(sessions.source, '(direct)'), ' / ', coalesce(sessions.medium, '(none)')) as source_medium,
        coalesce(sessions.campaign, '(none)') as campaign
    from attribution_paths
    inner join sessions on sessions.session_id = attribution_paths.session_id
),

-- All levels at once, because the walk along the path is the same.
turns as (
    select
        is_converted, path_id, converted_at, revenue, session_id, started_at, is_direct,
        channel, source_medium, campaign,
        case when channel = lag(channel) over walk then 0 else 1 end as is_new_channel,
        case when source_medium = lag(source_medium) over walk then 0 else 1 end as is_new_source_medium,
        case when campaign = lag(campaign) over walk then 0 else 1 end as is_new_campaign
    from path_values
    window walk as (partition by is_converted, path_id order by started_at, session_id)
),

numbered as (
    select
        is_converted, path_id, converted_at, revenue, started_at, is_direct, channel, source_medium, campaign,
        sum(is_new_channel) over walk as channel_index,
        sum(is_new_source_medium) over walk as source_medium_index,
        sum(is_new_campaign) over walk as campaign_index
    from turns
    window walk as (
        partition by is_converted, path_id order by started_at, session_id
        rows between unbounded preceding and current row
    )
),

levels as (
    select
        'channel' as level, is_converted, path_id, converted_at, revenue, started_at, is_direct,
        channel as touch, channel_index as touch_index
    from numbered
    union all
    select
        'source_medium' as level, is_converted, path_id, converted_at, revenue, started_at, is_direct,
        source_medium as touch, source_medium_index as touch_index
    from numbered
    union all
    select
        'campaign' as level, is_converted, path_id, converted_at, revenue, started_at, is_direct,
        campaign as touch, campaign_index as touch_index
    from numbered
)

select
    level,
    is_converted,
    path_id,
    cast(touch_index as bigint) as touch_index,
    touch,
    max(started_at) as touched_at,
    min(case when is_direct then 1 else 0 end) = 1 as is_direct,
    count(*) as session_count,
    count(*) over (partition by level, is_converted, path_id) as touch_count,
    converted_at,
    revenue
from levels
group by level, is_converted, path_id, touch_index, touch, converted_at, revenue
