-- The friction signals that each journey met in each stage it has advanced or dropped from.
with
decided as (
    select entity_id as journey_id, stage_index, outcome, window_ends_at
    from stage_entries
    where scope = 'journey' and outcome in ('advanced', 'dropped')
),

-- Only journeys with friction are walked: in all others every stage was passed without a signal.
walk as (
    select
        cast(journey_id as string) as journey_id,
        event_id,
        direction,
        stage_index,
        occurred_at,
        row_number() over (partition by journey_id order by occurred_at, event_id) as step
    from touchpoints
    where journey_id in (
        select touchpoints.journey_id
        from touchpoints
        inner join touchpoint_frictions on touchpoint_frictions.event_id = touchpoints.event_id
    )
),

entered as (
    select
        decided.journey_id, decided.stage_index, decided.outcome, decided.window_ends_at,
        min(walk.step) as first_step
    from decided
    inner join walk on walk.journey_id = decided.journey_id and walk.stage_index = decided.stage_index
    group by decided.journey_id, decided.stage_index, decided.outcome, decided.window_ends_at
),

-- What advances the journey is no longer part of the stage; the exit, the last one seen of it, is.
spans as (
    select
        entered.journey_id, entered.stage_index, entered.outcome, entered.first_step,
        case entered.outcome
            when 'advanced' then min(walk.step) filter (where walk.stage_index > entered.stage_index) - 1
            else max(walk.step) filter (
                where walk.direction = 'inbound' and walk.occurred_at <= entered.window_ends_at
            )
        end as last_step
    from entered
    inner join walk on walk.journey_id = entered.journey_id and walk.step >= entered.first_step
    group by entered.journey_id, entered.stage_index, entered.outcome, entered.first_step
),

signals as (
    select walk.journey_id, walk.step, touchpoint_frictions.signal
    from walk
    inner join touchpoint_frictions on touchpoint_frictions.event_id = walk.event_id
)

select distinct
    spans.journey_id,
    spans.stage_index,
    spans.outcome,
    signals.signal
from spans
inner join signals
    on signals.journey_id = spans.journey_id and signals.step between spans.first_step and spans.last_step
