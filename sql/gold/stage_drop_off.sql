with
inbound as (
    select
        cast(journey_id as string) as journey_id,
        customer_key,
        channel,
        event_type,
        occurred_at,
        event_id,
        lead(channel) over (partition by customer_key order by occurred_at, event_id) as next_channel,
        lead(event_type) over (partition by customer_key order by occurred_at, event_id) as next_event_type,
        lead(occurred_at) over (partition by customer_key order by occurred_at, event_id) as next_at
    from touchpoints
    where direction = 'inbound' and customer_key is not null
),

candidates as (
    select 'journey' as scope, journey_id as entity_id, channel, event_type, occurred_at, event_id,
        next_channel, next_event_type, next_at
    from inbound
    union all
    select 'customer' as scope, customer_key as entity_id, channel, event_type, occurred_at, event_id,
        next_channel, next_event_type, next_at
    from inbound
),

exits as (
    select
        stage_entries.scope,
        stage_entries.stage_index,
        stage_entries.cohort_date,
        candidates.channel as exit_channel,
        candidates.event_type as exit_event_type,
        candidates.next_channel,
        candidates.next_event_type,
        seconds_between(candidates.occurred_at, candidates.next_at) / 86400 as days_to_next,
        row_number() over (
            partition by stage_entries.scope, stage_entries.entity_id, stage_entries.stage_index
            order by candidates.occurred_at desc, candidates.event_id desc
        ) as from_last
    from stage_entries
    inner join candidates
        on
            candidates.scope = stage_entries.scope
            and candidates.entity_id = stage_entries.entity_id
            and candidates.occurred_at <= stage_entries.window_ends_at
    where stage_entries.outcome = 'dropped'
),

drop_periods as (
    select period from periods
    union all
    select 'all' as period
),

counted as (
    select
        exits.scope,
        period_start(exits.cohort_date, drop_periods.period, parameters.week_starts_on) as period_start_date,
        drop_periods.period,
        exits.stage_index,
        exits.exit_channel,
        exits.exit_event_type,
        exits.next_channel,
        exits.next_event_type,
        count(*) as dropped_count,
        percentile_cont(0.5) within group (order by exits.days_to_next) as median_days_to_next
    from exits
    cross join drop_periods
    cross join parameters
    where exits.from_last = 1
    group by
        exits.scope, drop_periods.period,
        period_start(exits.cohort_date, drop_periods.period, parameters.week_starts_on),
        exits.stage_index, exits.exit_channel, exits.exit_event_type, exits.next_channel, exits.next_event_type
)

select
    counted.scope,
    counted.period_start_date,
    counted.period,
    stage_definitions.stage,
    counted.exit_channel,
    counted.exit_event_type,
    counted.dropped_count,
    safe_ratio(
        counted.dropped_count,
        sum(counted.dropped_count) over (
            partition by counted.scope, counted.period, counted.period_start_date, counted.stage_index
        )
    ) as share_of_stage_drop,
    counted.next_channel,
    counted.next_event_type,
    counted.median_days_to_next
from counted
inner join stage_definitions on stage_definitions.stage_index = counted.stage_index
