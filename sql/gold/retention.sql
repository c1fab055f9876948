-- Which share of the customers who started in a period came back, by interval since their start.
with
-- What a member counts under: everything in calendar mode, nothing in rolling mode.
member_values as (
    select
        retention_members.member_number, retention_members.start_event, retention_members.return_event,
        retention_members.start_date, modes.mode,
        breakdown_values.breakdown, breakdown_values.breakdown_value
    from retention_members
    inner join breakdown_values
        on breakdown_values.scope = 'customer' and breakdown_values.entity_id = retention_members.customer_key
    inner join (select 'calendar' as mode union all select 'rolling' as mode) as modes
        on modes.mode = 'calendar' or breakdown_values.breakdown = 'none'
),

cohorts as (
    select
        member_values.start_event, member_values.return_event, member_values.mode, periods.period,
        period_start(member_values.start_date, periods.period, parameters.week_starts_on) as cohort_start_date,
        member_values.breakdown, member_values.breakdown_value,
        count(*) as cohort_size
    from member_values
    cross join periods
    cross join parameters
    group by
        member_values.start_event, member_values.return_event, member_values.mode, periods.period,
        period_start(member_values.start_date, periods.period, parameters.week_starts_on),
        member_values.breakdown, member_values.breakdown_value
),

-- A cohort's intervals, as UTC: in rolling mode from its first customer's possible start to its last one's end.
intervals as (
    select
        cohort_periods.mode, cohort_periods.period, cohort_periods.cohort_start_date,
        interval_numbers.number as interval_index,
        case cohort_periods.mode
            when 'calendar' then local_midnight(
                period_add(cohort_periods.cohort_start_date, cohort_periods.period, interval_numbers.number),
                parameters.reporting_timezone
            )
            else add_seconds(
                local_midnight(cohort_periods.cohort_start_date, parameters.reporting_timezone),
                interval_numbers.number * periods.rolling_days * 86400
            )
        end as begins_at,
        case cohort_periods.mode
            when 'calendar' then local_midnight(
                period_add(cohort_periods.cohort_start_date, cohort_periods.period, interval_numbers.number + 1),
                parameters.reporting_timezone
            )
            else add_seconds(
                local_midnight(
                    period_add(cohort_periods.cohort_start_date, cohort_periods.period, 1),
                    parameters.reporting_timezone
                ),
                (interval_numbers.number + 1) * periods.rolling_days * 86400
            )
        end as ends_at
    from (select distinct mode, period, cohort_start_date from cohorts) as cohort_periods
    inner join periods on periods.period = cohort_periods.period
    inner join interval_numbers on interval_numbers.number < periods.interval_count
    cross join parameters
),

begun_intervals as (
    select
        mode, period, cohort_start_date, interval_index, ends_at <= parameters.data_as_of as is_complete
    from intervals
    inner join parameters on intervals.begins_at <= parameters.data_as_of
),

placed_returns as (
    select
        retention_returns.member_number, retention_returns.mode, retention_returns.period,
        retention_returns.cohort_start_date, retention_returns.interval_index,
        begun_intervals.is_complete
    from retention_returns
    inner join begun_intervals
        on
            begun_intervals.mode = retention_returns.mode
            and begun_intervals.period = retention_returns.period
            and begun_intervals.cohort_start_date = retention_returns.cohort_start_date
            and begun_intervals.interval_index = retention_returns.interval_index
),

-- A row per member and interval with a return, and one more for the last complete one of them: until then the member
-- counts as unbounded.
marks as (
    select member_number, mode, period, cohort_start_date, interval_index, false as is_last
    from placed_returns
    union all
    select member_number, mode, period, cohort_start_date, max(interval_index) as interval_index, true as is_last
    from placed_returns
    where is_complete
    group by member_number, mode, period, cohort_start_date
),

return_counts as (
    select
        member_values.start_event, member_values.return_event, marks.mode, marks.period, marks.cohort_start_date,
        member_values.breakdown, member_values.breakdown_value, marks.interval_index,
        count(*) filter (where not marks.is_last) as bounded_count,
        count(*) filter (where marks.is_last) as last_count
    from marks
    inner join member_values
        on member_values.member_number = marks.member_number and member_values.mode = marks.mode
    group by
        member_values.start_event, member_values.return_event, marks.mode, marks.period, marks.cohort_start_date,
        member_values.breakdown, member_values.breakdown_value, marks.interval_index
),

counted as (
    select
        cohorts.cohort_start_date, cohorts.period, cohorts.mode, cohorts.start_event, cohorts.return_event,
        cohorts.breakdown, cohorts.breakdown_value, begun_intervals.interval_index, begun_intervals.is_complete,
        cohorts.cohort_size,
        coalesce(return_counts.bounded_count, 0) as bounded_count,
        case when begun_intervals.is_complete then cast(sum(coalesce(return_counts.last_count, 0)) over (
            partition by
                cohorts.start_event, cohorts.return_event, cohorts.mode, cohorts.period, cohorts.cohort_start_date,
                cohorts.breakdown, cohorts.breakdown_value
            order by begun_intervals.interval_index desc
            rows between unbounded preceding and current row
        ) as bigint) end as unbounded_count
    from cohorts
    inner join begun_intervals
        on
            begun_intervals.mode = cohorts.mode
            and begun_intervals.period = cohorts.period
            and begun_intervals.cohort_start_date = cohorts.cohort_start_date
    left join return_counts
        on
            return_counts.start_event = cohorts.start_event
            and return_counts.return_event = cohorts.return_event
            and return_counts.mode = cohorts.mode
            and return_counts.period = cohorts.period
            and return_counts.cohort_start_date = cohorts.cohort_start_date
            and return_counts.breakdown = cohorts.breakdown
            and return_counts.breakdown_value = cohorts.breakdown_value
            and return_counts.interval_index = begun_intervals.interval_index
)

select
    cohort_start_date,
    period,
    mode,
    start_event,
    return_event,
    breakdown,
    breakdown_value,
    interval_index,
    cohort_size,
    bounded_count,
    unbounded_count,
    case when is_complete then safe_ratio(bounded_count, cohort_size) end as bounded_ratio,
    case when is_complete then wilson_low(bounded_count, cohort_size) end as bounded_ratio_low,
    case when is_complete then wilson_high(bounded_count, cohort_size) end as bounded_ratio_high,
    case when is_complete then safe_ratio(unbounded_count, cohort_size) end as unbounded_ratio,
    case when is_complete then wilson_low(unbounded_count, cohort_size) end as unbounded_ratio_low,
    case when is_complete then wilson_high(unbounded_count, cohort_size) end as unbounded_ratio_high,
    is_complete
from counted
