-- How far each journey (by stage) and customer (by lifecycle stage) came through every stage in order: exactly
-- ClickHouse's windowFunnel(window) in default mode over the staged inbound touchpoints.
--
-- The chain walks in order of time, ties by stage; rows that tie on both are alike. A row of stage k + 1 is reached
-- while the latest chain that reached stage k is within its window, and carries that chain on. Chains only ever move
-- forward, so "latest" is a running maximum, here of the window's end. Two facts keep the walk short: within a run of
-- one later stage no chain moves, so what its first row cannot reach no other row can; and a row beyond the window of
-- the latest chain at one stage is beyond that of every later stage.
with staged as (
    select
        'journey' as scope, cast(journey_id as string) as entity_id, occurred_at, stage_index,
        add_seconds(occurred_at, conversion_window_seconds) as window_ends_at
    from touchpoints
    cross join parameters
    where direction = 'inbound' and journey_id is not null and stage_index is not null
    union all
    select
        'customer' as scope, customer_key as entity_id, occurred_at, lifecycle_stage_index as stage_index,
        add_seconds(occurred_at, customer_conversion_window_seconds) as window_ends_at
    from touchpoints
    cross join parameters
    where direction = 'inbound' and customer_key is not null and lifecycle_stage_index is not null
),

chains_of_1 as (
    select
        scope, entity_id, occurred_at, stage_index,
        max(case when stage_index = 1 then window_ends_at end) over walk as chain_ends_at,
        lag(stage_index) over walk as previous_stage_index
    from staged
    window walk as (partition by scope, entity_id order by occurred_at, stage_index)
),

chains_of_2 as (
    select
        scope, entity_id, occurred_at, stage_index,
        max(case when stage_index = 2 then chain_ends_at end) over walk as chain_ends_at
    from chains_of_1
    where occurred_at <= chain_ends_at and stage_index > 1 and stage_index <> previous_stage_index
    window walk as (partition by scope, entity_id order by occurred_at, stage_index)
),

chains_of_3 as (
    select
        scope, entity_id, occurred_at, stage_index,
        max(case when stage_index = 3 then chain_ends_at end) over walk as chain_ends_at
    from chains_of_2
    where stage_index <= 2 or occurred_at <= chain_ends_at
    window walk as (partition by scope, entity_id order by occurred_at, stage_index)
),

chains_of_4 as (
    select
        scope, entity_id, occurred_at, stage_index,
        max(case when stage_index = 4 then chain_ends_at end) over walk as chain_ends_at
    from chains_of_3
    where stage_index <= 3 or occurred_at <= chain_ends_at
    window walk as (partition by scope, entity_id order by occurred_at, stage_index)
),

chains_of_5 as (
    select
        scope, entity_id, occurred_at, stage_index,
        max(case when stage_index = 5 then chain_ends_at end) over walk as chain_ends_at
    from chains_of_4
    where stage_index <= 4 or occurred_at <= chain_ends_at
    window walk as (partition by scope, entity_id order by occurred_at, stage_index)
),

reached as (
    select scope, entity_id, stage_index
    from staged
    where stage_index = 1
    union all
    select scope, entity_id, stage_index
    from chains_of_5
    where stage_index <= 5 or occurred_at <= chain_ends_at
)

select
    scope,
    entity_id,
    max(stage_index) as ordered_stage_index
from reached
group by scope, entity_id
