with
entities as (
    select
        'journey' as scope,
        cast(journeys.journey_id as varchar) as entity_id,
        journeys.customer_key,
        journeys.started_at as cohort_at,
        journeys.revenue,
        parameters.conversion_window_seconds as window_seconds
    from journeys
    cross join parameters
    where journeys.status <> 'service'
    union all
    select
        'customer' as scope,
        customers.customer_key as entity_id,
        customers.customer_key,
        customers.first_touch_at as cohort_at,
        customers.revenue,
        parameters.customer_conversion_window_seconds as window_seconds
    from customers
    cross join parameters
    where customers.first_touch_at is not null
),

staged_touchpoints as (
    select
        'journey' as scope,
        cast(journey_id as varchar) as entity_id,
        stage_index,
        occurred_at,
        event_id
    from touchpoints
    where direction = 'inbound' and stage_index is not null and journey_id is not null
    union all
    select
        'customer' as scope,
        customer_key as entity_id,
        lifecycle_stage_index as stage_index,
        occurred_at,
        event_id
    from touchpoints
    where direction = 'inbound' and lifecycle_stage_index is not null and customer_key is not null
),

-- Only where the stage changes can a stage be entered or a later one be reached.
walk as (
    select
        scope,
        entity_id,
        stage_index,
        occurred_at,
        row_number() over (partition by scope, entity_id order by occurred_at, event_id) as step,
        lag(stage_index) over (partition by scope, entity_id order by occurred_at, event_id) as previous_stage_index
    from staged_touchpoints
),

visits as (
    select scope, entity_id, stage_index, occurred_at, step
    from walk
    where previous_stage_index is null or previous_stage_index <> stage_index
),

first_entries as (
    select scope, entity_id, stage_index, min(step) as step, min(occurred_at) as entered_at
    from visits
    group by scope, entity_id, stage_index
),

advances as (
    select
        first_entries.scope,
        first_entries.entity_id,
        first_entries.stage_index,
        min(visits.occurred_at) as advanced_at
    from first_entries
    inner join visits
        on
            visits.scope = first_entries.scope
            and visits.entity_id = first_entries.entity_id
            and visits.step > first_entries.step
            and visits.stage_index > first_entries.stage_index
    group by first_entries.scope, first_entries.entity_id, first_entries.stage_index
),

-- The ordered chain is ClickHouse's windowFunnel: by time, ties by stage. Within a run of one stage the chain's
-- start only changes in stage 1, where the last touchpoint counts; of a later stage the first one is the easiest
-- to reach in time.
funnel_walk as (
    select
        scope,
        entity_id,
        stage_index,
        occurred_at,
        row_number() over (
            partition by scope, entity_id order by occurred_at, stage_index, event_id
        ) as step,
        lag(stage_index) over (
            partition by scope, entity_id order by occurred_at, stage_index, event_id
        ) as previous_stage_index,
        lead(stage_index) over (
            partition by scope, entity_id order by occurred_at, stage_index, event_id
        ) as next_stage_index
    from staged_touchpoints
),

chain_1 as (
    select
        funnel_walk.scope,
        funnel_walk.entity_id,
        funnel_walk.stage_index,
        funnel_walk.occurred_at,
        funnel_walk.step,
        entities.window_seconds,
        max(case when funnel_walk.stage_index = 1 then funnel_walk.occurred_at end) over (
            partition by funnel_walk.scope, funnel_walk.entity_id order by funnel_walk.step
            rows between unbounded preceding and current row
        ) as start_1
    from funnel_walk
    inner join entities
        on entities.scope = funnel_walk.scope and entities.entity_id = funnel_walk.entity_id
    where
        (funnel_walk.stage_index = 1 and coalesce(funnel_walk.next_stage_index, 0) <> 1)
        or (funnel_walk.stage_index > 1 and coalesce(funnel_walk.previous_stage_index, 0) <> funnel_walk.stage_index)
),

chain_2 as (
    select
        *,
        max(case
            when stage_index = 2 and occurred_at <= add_seconds(start_1, window_seconds) then start_1
        end) over (
            partition by scope, entity_id order by step rows between unbounded preceding and current row
        ) as start_2
    from chain_1
    where start_1 is not null
),

chain_3 as (
    select
        *,
        max(case
            when stage_index = 3 and occurred_at <= add_seconds(start_2, window_seconds) then start_2
        end) over (
            partition by scope, entity_id order by step rows between unbounded preceding and current row
        ) as start_3
    from chain_2
),

chain_4 as (
    select
        *,
        max(case
            when stage_index = 4 and occurred_at <= add_seconds(start_3, window_seconds) then start_3
        end) over (
            partition by scope, entity_id order by step rows between unbounded preceding and current row
        ) as start_4
    from chain_3
),

chain_5 as (
    select
        *,
        max(case
            when stage_index = 5 and occurred_at <= add_seconds(start_4, window_seconds) then start_4
        end) over (
            partition by scope, entity_id order by step rows between unbounded preceding and current row
        ) as start_5
    from chain_4
),

levels as (
    select
        scope,
        entity_id,
        max(case
            when stage_index = 6 and occurred_at <= add_seconds(start_5, window_seconds) then 6
            when start_5 is not null then 5
            when start_4 is not null then 4
            when start_3 is not null then 3
            when start_2 is not null then 2
            else 1
        end) as level
    from chain_5
    group by scope, entity_id
),

outcomes as (
    select
        first_entries.scope,
        first_entries.entity_id,
        entities.customer_key,
        first_entries.stage_index,
        local_date(entities.cohort_at, parameters.reporting_timezone) as cohort_date,
        first_entries.entered_at,
        add_seconds(first_entries.entered_at, entities.window_seconds) as window_ends_at,
        case
            when advances.advanced_at <= add_seconds(first_entries.entered_at, entities.window_seconds)
                then advances.advanced_at
        end as advanced_at,
        coalesce(levels.level, 0) >= first_entries.stage_index as is_in_order,
        entities.revenue,
        parameters.data_as_of
    from first_entries
    inner join entities
        on entities.scope = first_entries.scope and entities.entity_id = first_entries.entity_id
    left join advances
        on
            advances.scope = first_entries.scope
            and advances.entity_id = first_entries.entity_id
            and advances.stage_index = first_entries.stage_index
    left join levels
        on levels.scope = first_entries.scope and levels.entity_id = first_entries.entity_id
    cross join parameters
),

last_stage as (
    select max(stage_index) as stage_index from stage_definitions
)

select
    outcomes.scope,
    outcomes.entity_id,
    outcomes.customer_key,
    outcomes.stage_index,
    outcomes.cohort_date,
    outcomes.entered_at,
    outcomes.window_ends_at,
    outcomes.advanced_at,
    seconds_between(outcomes.entered_at, outcomes.advanced_at) as seconds_to_advance,
    case
        when outcomes.stage_index = last_stage.stage_index then null
        when outcomes.advanced_at is not null then 'advanced'
        when outcomes.window_ends_at >= outcomes.data_as_of then 'active'
        else 'dropped'
    end as outcome,
    outcomes.is_in_order,
    outcomes.revenue
from outcomes
cross join last_stage
