with
counted as (
    select
        stage,
        channel,
        event_type,
        state,
        count(distinct journey_id) as journey_count,
        count(distinct case when is_converted then journey_id end) as converted_count
    from conversion_steps
    group by stage, channel, event_type, state
)

select
    counted.stage,
    counted.channel,
    counted.event_type,
    counted.journey_count,
    absorption.conversion_probability,
    absorption.mean_steps_to_conversion,
    counted.converted_count,
    safe_ratio(counted.converted_count, counted.journey_count) as conversion_ratio,
    wilson_low(counted.converted_count, counted.journey_count) as conversion_ratio_low,
    wilson_high(counted.converted_count, counted.journey_count) as conversion_ratio_high
from counted
inner join absorption on absorption.state = counted.state
