-- The stage that a journey was in just before each answer and each friction of it.
with
moments as (
    select event_id, journey_id
    from touchpoints
    where
        journey_id is not null
        and (
            csat_rating is not null
            or nps_score is not null
            or event_id in (select event_id from touchpoint_frictions)
        )
),

-- staged_number counts the journey's staged touchpoints so far, and so numbers them.
walk as (
    select
        journey_id,
        event_id,
        stage_index,
        count(stage_index) over (
            partition by journey_id order by occurred_at, event_id
            rows between unbounded preceding and current row
        ) as staged_number
    from touchpoints
    where journey_id in (select journey_id from moments)
),

numbered_moments as (
    select
        walk.journey_id,
        walk.event_id,
        case when walk.stage_index is null then walk.staged_number else walk.staged_number - 1 end as earlier_number
    from walk
    inner join moments on moments.event_id = walk.event_id
)

select
    numbered_moments.event_id,
    walk.stage_index
from numbered_moments
inner join walk
    on
        walk.journey_id = numbered_moments.journey_id
        and walk.staged_number = numbered_moments.earlier_number
where walk.stage_index is not null
