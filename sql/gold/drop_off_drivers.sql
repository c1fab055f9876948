-- Whether journeys that met a friction signal in a stage advanced from it less often than the others.
with
met_counts as (
    select
        stage_index,
        signal,
        count(*) filter (where outcome = 'advanced') as advanced_count,
        count(*) filter (where outcome = 'dropped') as dropped_count
    from stage_frictions
    group by stage_index, signal
),

stage_counts as (
    select
        stage_index,
        count(*) filter (where outcome = 'advanced') as advanced_count,
        count(*) filter (where outcome = 'dropped') as dropped_count
    from stage_entries
    where scope = 'journey' and outcome in ('advanced', 'dropped')
    group by stage_index
),

counted as (
    select
        stage_counts.stage_index,
        friction_definitions.signal,
        coalesce(met_counts.advanced_count, 0) as with_advanced,
        coalesce(met_counts.dropped_count, 0) as with_dropped,
        stage_counts.advanced_count - coalesce(met_counts.advanced_count, 0) as without_advanced,
        stage_counts.dropped_count - coalesce(met_counts.dropped_count, 0) as without_dropped
    from stage_counts
    cross join friction_definitions
    left join met_counts
        on
            met_counts.stage_index = stage_counts.stage_index
            and met_counts.signal = friction_definitions.signal
)

select
    stage_definitions.stage,
    counted.signal,
    counted.with_advanced as with_signal_advanced,
    counted.with_dropped as with_signal_dropped,
    counted.without_advanced as without_signal_advanced,
    counted.without_dropped as without_signal_dropped,
    odds_ratio(
        counted.with_advanced, counted.with_dropped, counted.without_advanced, counted.without_dropped
    ) as odds_ratio,
    odds_ratio_low(
        counted.with_advanced, counted.with_dropped, counted.without_advanced, counted.without_dropped
    ) as odds_ratio_low,
    odds_ratio_high(
        counted.with_advanced, counted.with_dropped, counted.without_advanced, counted.without_dropped
    ) as odds_ratio_high,
    counted.with_advanced + counted.with_dropped < parameters.small_sample_count as is_small_sample,
    counted.stage_index,
    safe_ratio(
        counted.with_advanced, counted.with_advanced + counted.with_dropped
    ) as with_signal_conversion_ratio,
    safe_ratio(
        counted.without_advanced, counted.without_advanced + counted.without_dropped
    ) as without_signal_conversion_ratio
from counted
inner join stage_definitions on stage_definitions.stage_index = counted.stage_index
cross join parameters
