with
-- A ticket counts where it was created, and once more where it was last solved: there it may have been answered.
moments as (
    select
        'created' as moment,
        local_date(tickets.created_at, parameters.reporting_timezone) as moment_date,
        seconds_between(tickets.created_at, tickets.first_reply_at) as first_reply_seconds,
        seconds_between(tickets.created_at, tickets.solved_at) as resolution_seconds,
        tickets.reopened_count,
        tickets.csat_rating
    from tickets
    cross join parameters
    where tickets.created_at is not null
    union all
    select
        'solved' as moment,
        local_date(tickets.solved_at, parameters.reporting_timezone) as moment_date,
        cast(null as double) as first_reply_seconds,
        cast(null as double) as resolution_seconds,
        tickets.reopened_count,
        tickets.csat_rating
    from tickets
    cross join parameters
    where tickets.solved_at is not null
),

counted as (
    select
        period_start(moments.moment_date, periods.period, parameters.week_starts_on) as period_start_date,
        periods.period,
        count(*) filter (where moments.moment = 'created') as ticket_count,
        count(moments.first_reply_seconds) as replied_count,
        count(moments.resolution_seconds) as solved_count,
        count(*) filter (where moments.moment = 'created' and moments.reopened_count > 0) as reopened_count,
        percentile_cont(0.5) within group (order by moments.first_reply_seconds) as median_first_reply_seconds,
        percentile_cont(0.5) within group (order by moments.resolution_seconds) as median_resolution_seconds,
        percentile_cont(0.9) within group (order by moments.resolution_seconds) as p90_resolution_seconds,
        count(*) filter (where moments.moment = 'solved') as solved_in_period_count,
        count(*) filter (where moments.moment = 'solved' and moments.csat_rating is not null) as csat_answered_count
    from moments
    cross join periods
    cross join parameters
    group by period_start(moments.moment_date, periods.period, parameters.week_starts_on), periods.period
)

select
    counted.period_start_date,
    counted.period,
    counted.ticket_count,
    counted.solved_count,
    counted.reopened_count,
    counted.median_first_reply_seconds,
    counted.median_resolution_seconds,
    counted.p90_resolution_seconds,
    counted.replied_count,
    counted.solved_in_period_count,
    counted.csat_answered_count,
    safe_ratio(counted.csat_answered_count, counted.solved_in_period_count) as csat_answer_ratio,
    wilson_low(counted.csat_answered_count, counted.solved_in_period_count) as csat_answer_ratio_low,
    wilson_high(counted.csat_answered_count, counted.solved_in_period_count) as csat_answer_ratio_high,
    reporting_periods.is_complete
from counted
inner join reporting_periods
    on
        reporting_periods.period = counted.period
        and reporting_periods.period_start_date = counted.period_start_date
