-- How long each stage visit lasted, and the channel that began it.
with
-- At one instant several touchpoints may be of the stage; the first by event id speaks for it.
entering as (
    select
        stage_visits.journey_id,
        stage_visits.visit_index,
        touchpoints.channel,
        row_number() over (
            partition by stage_visits.journey_id, stage_visits.visit_index order by touchpoints.event_id
        ) as place
    from stage_visits
    inner join touchpoints
        on
            touchpoints.journey_id = stage_visits.journey_id
            and touchpoints.stage_index = stage_visits.stage_index
            and touchpoints.occurred_at = stage_visits.entered_at
)

select
    stage_visits.journey_id,
    stage_visits.visit_index,
    stage_visits.stage_index,
    entering.channel,
    seconds_between(stage_visits.entered_at, stage_visits.exited_at) as seconds_in_stage
from stage_visits
inner join entering
    on
        entering.journey_id = stage_visits.journey_id
        and entering.visit_index = stage_visits.visit_index
        and entering.place = 1
