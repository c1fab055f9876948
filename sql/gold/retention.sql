-- Which share of the customers who started in a period came back, by interval since their start.
with
started as (
    select 'first_order' as start_event, customer_key, ordered_at as started_at, event_id as start_event_id
    from orders
    where order_index = 1
    union all
    select
        'first_touch' as start_event, touchpoints.customer_key, touchpoints.occurred_at as started_at,
        min(touchpoints.event_id) as start_event_id
    from touchpoints
    inner join customers
        on customers.customer_key = touchpoints.customer_key and customers.first_touch_at = touchpoints.occurred_at
    where touchpoints.direction = 'inbound'
    group by touchpoints.customer_key, touchpoints.occurred_at
),

returned as (
    select 'order' as return_event, customer_key, ordered_at as returned_at, event_id
    from orders
    union all
    select 'any' as return_event, customer_key, occurred_at as returned_at, event_id
    from touchpoints
    where direction = 'inbound'
),

period_lengths as (
    select 'day' as period, 1 as rolling_days, day_intervals as interval_count from parameters
    union all
    select 'week' as period, 7 as rolling_days, week_intervals as interval_count from parameters
    union all
    select 'month' as period, 30 as rolling_days, month_intervals as interval_count from parameters
),

-- One member per definition and customer who started.
members as (
    select
        row_number() over (
            order by retention_definitions.start_event, retention_definitions.return_event, started.customer_key
        ) as member_number,
        retention_definitions.start_event, retention_definitions.return_event,
        started.customer_key, started.started_at, started.start_event_id,
        local_date(started.started_at, parameters.reporting_timezone) as start_date
    from started
    inner join retention_definitions on retention_definitions.start_event = started.start_event
    cross join parameters
),

-- The days of return: the calendar's, and 24-hour days since the start; weeks and months follow from them.
-- The start itself is a return only where start and return are the same event.
return_days as (
    select distinct
        members.member_number, members.start_date,
        local_date(returned.returned_at, parameters.reporting_timezone) as return_date,
        cast(floor(seconds_between(members.started_at, returned.returned_at) / 86400) as bigint) as elapsed_days
    from members
    inner join returned
        on
            returned.return_event = members.return_event
            and returned.customer_key = members.customer_key
            and (
                returned.returned_at > members.started_at
                or (returned.returned_at = members.started_at and returned.event_id > members.start_event_id)
                or (
                    returned.event_id = members.start_event_id
                    and (
                        (members.start_event = 'first_order' and members.return_event = 'order')
                        or (members.start_event = 'first_touch' and members.return_event = 'any')
                    )
                )
            )
    cross join parameters
),

returns as (
    select distinct
        return_days.member_number, 'calendar' as mode, period_lengths.period,
        period_start(return_days.start_date, period_lengths.period, parameters.week_starts_on) as cohort_start_date,
        periods_between(
            period_start(return_days.start_date, period_lengths.period, parameters.week_starts_on),
            period_start(return_days.return_date, period_lengths.period, parameters.week_starts_on),
            period_lengths.period
        ) as interval_index
    from return_days
    cross join period_lengths
    cross join parameters
    union all
    select distinct
        return_days.member_number, 'rolling' as mode, period_lengths.period,
        period_start(return_days.start_date, period_lengths.period, parameters.week_starts_on) as cohort_start_date,
        cast(floor(return_days.elapsed_days / period_lengths.rolling_days) as bigint) as interval_index
    from return_days
    cross join period_lengths
    cross join parameters
),

-- What a member counts under: everything in calendar mode, nothing in rolling mode.
member_values as (
    select
        members.member_number, members.start_event, members.return_event, members.start_date, modes.mode,
        breakdown_values.breakdown, breakdown_values.breakdown_value
    from members
    inner join breakdown_values
        on breakdown_values.scope = 'customer' and breakdown_values.entity_id = members.customer_key
    inner join (select 'calendar' as mode union all select 'rolling' as mode) as modes
        on modes.mode = 'calendar' or breakdown_values.breakdown = 'none'
),

cohorts as (
    select
        member_values.start_event, member_values.return_event, member_values.mode, period_lengths.period,
        period_start(member_values.start_date, period_lengths.period, parameters.week_starts_on) as cohort_start_date,
        member_values.breakdown, member_values.breakdown_value,
        count(*) as cohort_size
    from member_values
    cross join period_lengths
    cross join parameters
    group by
        member_values.start_event, member_values.return_event, member_values.mode, period_lengths.period,
        period_start(member_values.start_date, period_lengths.period, parameters.week_starts_on),
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
                interval_numbers.number * period_lengths.rolling_days * 86400
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
                (interval_numbers.number + 1) * period_lengths.rolling_days * 86400
            )
        end as ends_at
    from (select distinct mode, period, cohort_start_date from cohorts) as cohort_periods
    inner join period_lengths on period_lengths.period = cohort_periods.period
    inner join interval_numbers on interval_numbers.number < period_lengths.interval_count
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
        returns.member_number, returns.mode, returns.period, returns.cohort_start_date, returns.interval_index,
        begun_intervals.is_complete
    from returns
    inner join begun_intervals
        on
            begun_intervals.mode = returns.mode
            and begun_intervals.period = returns.period
            and begun_intervals.cohort_start_date = returns.cohort_start_date
            and begun_intervals.interval_index = returns.interval_index
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
        count_where(not marks.is_last) as bounded_count,
        count_where(marks.is_last) as last_count
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
