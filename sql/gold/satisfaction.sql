with
counted as (
    select
        period_start(
            satisfaction_answers.answered_date, periods.period, parameters.week_starts_on
        ) as period_start_date,
        periods.period,
        satisfaction_answers.stage_index,
        satisfaction_answers.channel,
        count(satisfaction_answers.csat_rating) as csat_count,
        count(*) filter (where satisfaction_answers.is_satisfied) as csat_satisfied_count,
        count(satisfaction_answers.nps_score) as nps_count,
        count(*) filter (where satisfaction_answers.nps_class = 1) as promoter_count,
        count(*) filter (where satisfaction_answers.nps_class = -1) as detractor_count
    from satisfaction_answers
    cross join periods
    cross join parameters
    group by
        period_start(satisfaction_answers.answered_date, periods.period, parameters.week_starts_on),
        periods.period, satisfaction_answers.stage_index, satisfaction_answers.channel
)

select
    counted.period_start_date,
    counted.period,
    stage_definitions.stage,
    counted.channel,
    counted.csat_count,
    counted.csat_satisfied_count,
    safe_ratio(counted.csat_satisfied_count, counted.csat_count) as csat_ratio,
    counted.nps_count,
    counted.promoter_count,
    counted.detractor_count,
    100 * safe_ratio(counted.promoter_count - counted.detractor_count, counted.nps_count) as nps,
    wilson_low(counted.csat_satisfied_count, counted.csat_count) as csat_ratio_low,
    wilson_high(counted.csat_satisfied_count, counted.csat_count) as csat_ratio_high,
    counted.stage_index,
    reporting_periods.is_complete
from counted
inner join reporting_periods
    on
        reporting_periods.period = counted.period
        and reporting_periods.period_start_date = counted.period_start_date
left join stage_definitions on stage_definitions.stage_index = counted.stage_index
