-- Every stage in every channel side by side: who was there, what they did, what came of it, and how it felt.
with
time_in_stage as (
    select
        stage_index,
        channel,
        percentile_cont(0.5) within group (order by seconds_in_stage) as median_seconds_in_stage
    from stage_visit_times
    group by stage_index, channel
),

-- Answers and friction before the journey had any stage are on no map.
answers as (
    select
        stage_index,
        channel,
        count(csat_rating) as csat_count,
        count(*) filter (where is_satisfied) as csat_satisfied_count,
        count(nps_score) as nps_count,
        coalesce(sum(nps_class), 0) as nps_class_sum,
        0.5 * coalesce(sum(csat_rating - 3), 0) + coalesce(sum(nps_class), 0) as sentiment_sum
    from satisfaction_answers
    where stage_index is not null
    group by stage_index, channel
),

-- What has no stage of its own, as a refund or a ticket before any order, happened in the stage the journey was in.
friction_touchpoints as (
    select
        touchpoints.event_id,
        touchpoints.channel,
        coalesce(touchpoints.stage_index, stages_before.stage_index) as stage_index
    from touchpoints
    left join stages_before on stages_before.event_id = touchpoints.event_id
    where
        touchpoints.customer_key is not null
        and touchpoints.event_id in (select event_id from touchpoint_frictions)
),

signal_counts as (
    select
        friction_touchpoints.stage_index,
        friction_touchpoints.channel,
        touchpoint_frictions.signal,
        row_number() over (
            partition by friction_touchpoints.stage_index, friction_touchpoints.channel
            order by count(*) desc, touchpoint_frictions.signal
        ) as place
    from friction_touchpoints
    inner join touchpoint_frictions on touchpoint_frictions.event_id = friction_touchpoints.event_id
    group by friction_touchpoints.stage_index, friction_touchpoints.channel, touchpoint_frictions.signal
),

frictions as (
    select stage_index, channel, count(*) as friction_count
    from friction_touchpoints
    where stage_index is not null
    group by stage_index, channel
),

cells as (
    select stage_index, channel from stage_channel_touches
    union
    select stage_index, channel from answers
    union
    select stage_index, channel from frictions
)

select
    stage_definitions.stage,
    cells.channel,
    coalesce(stage_channel_touches.customer_count, 0) as customer_count,
    coalesce(stage_channel_touches.touchpoint_count, 0) as touchpoint_count,
    stage_channel_touches.top_event_types,
    safe_ratio(stage_channel_touches.converted_count, stage_channel_touches.decided_count) as conversion_ratio,
    time_in_stage.median_seconds_in_stage,
    safe_ratio(answers.csat_satisfied_count, answers.csat_count) as csat_ratio,
    100 * safe_ratio(answers.nps_class_sum, answers.nps_count) as nps,
    coalesce(frictions.friction_count, 0) as friction_count,
    signal_counts.signal as top_friction,
    safe_ratio(answers.sentiment_sum, answers.csat_count + answers.nps_count) as sentiment,
    cells.stage_index,
    coalesce(stage_channel_touches.decided_count, 0) as decided_journey_count,
    coalesce(stage_channel_touches.converted_count, 0) as converted_journey_count,
    wilson_low(stage_channel_touches.converted_count, stage_channel_touches.decided_count) as conversion_ratio_low,
    wilson_high(stage_channel_touches.converted_count, stage_channel_touches.decided_count) as conversion_ratio_high,
    coalesce(answers.csat_count, 0) as csat_count,
    wilson_low(answers.csat_satisfied_count, answers.csat_count) as csat_ratio_low,
    wilson_high(answers.csat_satisfied_count, answers.csat_count) as csat_ratio_high,
    coalesce(answers.nps_count, 0) as nps_count
from cells
inner join stage_definitions on stage_definitions.stage_index = cells.stage_index
left join stage_channel_touches
    on stage_channel_touches.stage_index = cells.stage_index and stage_channel_touches.channel = cells.channel
left join time_in_stage on time_in_stage.stage_index = cells.stage_index and time_in_stage.channel = cells.channel
left join answers on answers.stage_index = cells.stage_index and answers.channel = cells.channel
left join frictions on frictions.stage_index = cells.stage_index and frictions.channel = cells.channel
left join signal_counts
    on
        signal_counts.stage_index = cells.stage_index
        and signal_counts.channel = cells.channel
        and signal_counts.place = 1
