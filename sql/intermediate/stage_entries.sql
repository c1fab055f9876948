-- The first entry of each journey (by stage) and customer (by lifecycle stage) into each stage, and what came of it.
with
entities as (
    select
        'journey' as scope,
        cast(journeys.journey_id as string) as entity_id,
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

staged as (
    select 'journey' as scope, cast(journey_id as string) as entity_id, stage_index, occurred_at, event_id
    from touchpoints
    where direction = 'inbound' and journey_id is not null and stage_index is not null
    union all
    select
        'customer' as scope, customer_key as entity_id, lifecycle_stage_index as stage_index, occurred_at, event_id
    from touchpoints
    where direction = 'inbound' and customer_key is not null and lifecycle_stage_index is not null
),

walk as (
    select
        scope,
        entity_id,
        stage_index,
        occurred_at,
        row_number() over (partition by scope, entity_id order by occurred_at, event_id) as step
    from staged
),

first_entries as (
    select scope, entity_id, stage_index, min(step) as step, min(occurred_at) as entered_at
    from walk
    group by scope, entity_id, stage_index
),

-- A touchpoint of a later stage after the first entry always belongs to a visit that began after it.
next_entries as (
    select
        first_entries.scope,
        first_entries.entity_id,
        first_entries.stage_index,
        min(walk.occurred_at) as later_at
    from first_entries
    inner join walk
        on
            walk.scope = first_entries.scope
            and walk.entity_id = first_entries.entity_id
            and walk.stage_index > first_entries.stage_index
            and walk.step > first_entries.step
    group by first_entries.scope, first_entries.entity_id, first_entries.stage_index
),

windowed as (
    select
        entities.scope,
        entities.entity_id,
        entities.customer_key,
        first_entries.stage_index,
        entities.cohort_at,
        first_entries.entered_at,
        add_seconds(first_entries.entered_at, entities.window_seconds) as window_ends_at,
        next_entries.later_at,
        entities.revenue
    from first_entries
    inner join entities
        on entities.scope = first_entries.scope and entities.entity_id = first_entries.entity_id
    left join next_entries
        on
            next_entries.scope = first_entries.scope
            and next_entries.entity_id = first_entries.entity_id
            and next_entries.stage_index = first_entries.stage_index
),

judged as (
    select *, case when later_at <= window_ends_at then later_at end as advanced_at
    from windowed
),

last_stage as (
    select max(stage_index) as stage_index from stage_definitions
)

select
    judged.scope,
    judged.entity_id,
    judged.customer_key,
    judged.stage_index,
    local_date(judged.cohort_at, parameters.reporting_timezone) as cohort_date,
    judged.entered_at,
    judged.window_ends_at,
    judged.advanced_at,
    seconds_between(judged.entered_at, judged.advanced_at) as seconds_to_advance,
    case
        when judged.stage_index = last_stage.stage_index then null
        when judged.advanced_at is not null then 'advanced'
        when judged.window_ends_at >= parameters.data_as_of then 'active'
        else 'dropped'
    end as outcome,
    judged.stage_index <= coalesce(stage_chains.ordered_stage_index, 0) as is_in_order,
    judged.revenue
from judged
left join stage_chains
    on stage_chains.scope = judged.scope and stage_chains.entity_id = judged.entity_id
cross join last_stage
cross join parameters
