with
started as (
    select
        customers.customer_key,
        'first_order' as start_event,
        orders.ordered_at as start_at,
        orders.event_id as start_event_id
    from customers
    inner join orders on orders.customer_key = customers.customer_key and orders.order_index = 1
    where customers.first_touch_at is not null
    union all
    select
        customer_key,
        'first_touch' as start_event,
        first_touch_at as start_at,
        cast(null as uuid) as start_event_id
    from customers
    where first_touch_at is not null
),

returned as (
    select customer_key, 'order' as return_event, ordered_at as returned_at, event_id
    from orders
    union all
    select customer_key, 'any' as return_event, occurred_at as returned_at, event_id
    from touchpoints
    where direction = 'inbound' and customer_key is not null
),

-- The start itself is a return only where start and return are the same event.
returns as (
    select
        started.customer_key,
        retention_definitions.start_event,
        retention_definitions.return_event,
        started.start_at,
        returned.returned_at
    from retention_definitions
    inner join started on started.start_event = retention_definitions.start_event
    inner join returned
        on
            returned.customer_key = started.customer_key
            and returned.return_event = retention_definitions.return_event
            and returned.returned_at >= started.start_at
    where
        (retention_definitions.start_event = 'first_touch' and retention_definitions.return_event = 'any')
        or (retention_definitions.start_event = 'first_order' and retention_definitions.return_event = 'order')
        or returned.returned_at > started.start_at
        or (
            started.start_event_id is not null
            and returned.returned_at = started.start_at
            and returned.event_id > started.start_event_id
        )
),

period_lengths as (
    select 'day' as period, 1 as rolling_days, day_intervals as interval_count from parameters
    union all
    select 'week' as period, 7 as rolling_days, week_intervals as interval_count from parameters
    union all
    select 'month' as period, 30 as rolling_days, month_intervals as interval_count from parameters
),

-- Without breakdown in every mode and period; with breakdown in calendar weeks and months.
cells as (
    select modes.mode, period_lengths.period, 'none' as breakdown
    from period_lengths
    cross join (select 'calendar' as mode union all select 'rolling' as mode) as modes
    union all
    select 'calendar' as mode, periods.period, breakdowns.breakdown
    from (select 'week' as period union all select 'month' as period) as periods
    cross join (select distinct breakdown from breakdown_values where breakdown <> 'none') as breakdowns
),

members as (
    select
        started.customer_key,
        retention_definitions.start_event,
        retention_definitions.return_event,
        period_lengths.period,
        period_start(
            local_date(started.start_at, parameters.reporting_timezone), period_lengths.period,
            parameters.week_starts_on
        ) as cohort_start_date
    from retention_definitions
    inner join started on started.start_event = retention_definitions.start_event
    cross join period_lengths
    cross join parameters
),

cohorts as (
    select
        members.start_event,
        members.return_event,
        cells.mode,
        members.period,
        members.cohort_start_date,
        cells.breakdown,
        breakdown_values.breakdown_value,
        count(*) as cohort_size
    from members
    inner join cells on cells.period = members.period
    inner join breakdown_values
        on
            breakdown_values.scope = 'customer'
            and breakdown_values.entity_id = members.customer_key
            and breakdown_values.breakdown = cells.breakdown
    group by
        members.start_event, members.return_event, cells.mode, members.period, members.cohort_start_date,
        cells.breakdown, breakdown_values.breakdown_value
),

-- The intervals of a cohort that have begun by data_as_of, and whether they have ended for all of it.
intervals as (
    select
        cohort_periods.mode,
        cohort_periods.period,
        cohort_periods.cohort_start_date,
        numbers.interval_index,
        case
            when cohort_periods.mode = 'calendar' then local_midnight(
                period_add(cohort_periods.cohort_start_date, cohort_periods.period, numbers.interval_index + 1),
                parameters.reporting_timezone
            )
            else add_seconds(
                local_midnight(
                    period_add(cohort_periods.cohort_start_date, cohort_periods.period, 1),
                    parameters.reporting_timezone
                ),
                (numbers.interval_index + 1) * period_lengths.rolling_days * 86400
            )
        end <= parameters.data_as_of as is_complete
    from (select distinct mode, period, cohort_start_date from cohorts) as cohort_periods
    inner join period_lengths on period_lengths.period = cohort_periods.period
    cross join (select cast(number as integer) as interval_index from interval_numbers) as numbers
    cross join parameters
    where
        numbers.interval_index < period_lengths.interval_count
        and case
            when cohort_periods.mode = 'calendar' then local_midnight(
                period_add(cohort_periods.cohort_start_date, cohort_periods.period, numbers.interval_index),
                parameters.reporting_timezone
            )
            else add_seconds(
                local_midnight(cohort_periods.cohort_start_date, parameters.reporting_timezone),
                numbers.interval_index * period_lengths.rolling_days * 86400
            )
        end <= parameters.data_as_of
),

last_complete as (
    select mode, period, cohort_start_date, max(case when is_complete then interval_index end) as interval_index
    from intervals
    group by mode, period, cohort_start_date
),

return_days as (
    select distinct
        returns.customer_key,
        returns.start_event,
        returns.return_event,
        local_date(returns.start_at, parameters.reporting_timezone) as start_date,
        local_date(returns.returned_at, parameters.reporting_timezone) as return_date
    from returns
    cross join parameters
),

active_intervals as (
    select distinct
        return_days.customer_key,
        return_days.start_event,
        return_days.return_event,
        'calendar' as mode,
        period_lengths.period,
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
        returns.customer_key,
        returns.start_event,
        returns.return_event,
        'rolling' as mode,
        period_lengths.period,
        cast(
            floor(seconds_between(returns.start_at, returns.returned_at) / (period_lengths.rolling_days * 86400))
            as bigint
        ) as interval_index
    from returns
    cross join period_lengths
),

placed as (
    select
        active_intervals.customer_key,
        active_intervals.start_event,
        active_intervals.return_event,
        active_intervals.mode,
        active_intervals.period,
        members.cohort_start_date,
        active_intervals.interval_index
    from active_intervals
    inner join members
        on
            members.customer_key = active_intervals.customer_key
            and members.start_event = active_intervals.start_event
            and members.return_event = active_intervals.return_event
            and members.period = active_intervals.period
),

bounded as (
    select
        placed.start_event,
        placed.return_event,
        placed.mode,
        placed.period,
        placed.cohort_start_date,
        cells.breakdown,
        breakdown_values.breakdown_value,
        placed.interval_index,
        count(*) as bounded_count
    from placed
    inner join cells on cells.mode = placed.mode and cells.period = placed.period
    inner join breakdown_values
        on
            breakdown_values.scope = 'customer'
            and breakdown_values.entity_id = placed.customer_key
            and breakdown_values.breakdown = cells.breakdown
    group by
        placed.start_event, placed.return_event, placed.mode, placed.period, placed.cohort_start_date,
        cells.breakdown, breakdown_values.breakdown_value, placed.interval_index
),

-- A customer's last return within the complete intervals says up to which interval she counts as unbounded.
last_returns as (
    select
        placed.customer_key,
        placed.start_event,
        placed.return_event,
        placed.mode,
        placed.period,
        placed.cohort_start_date,
        max(placed.interval_index) as interval_index
    from placed
    inner join last_complete
        on
            last_complete.mode = placed.mode
            and last_complete.period = placed.period
            and last_complete.cohort_start_date = placed.cohort_start_date
            and last_complete.interval_index >= placed.interval_index
    group by
        placed.customer_key, placed.start_event, placed.return_event, placed.mode, placed.period,
        placed.cohort_start_date
),

last_return_counts as (
    select
        last_returns.start_event,
        last_returns.return_event,
        last_returns.mode,
        last_returns.period,
        last_returns.cohort_start_date,
        cells.breakdown,
        breakdown_values.breakdown_value,
        last_returns.interval_index,
        count(*) as customer_count
    from last_returns
    inner join cells on cells.mode = last_returns.mode and cells.period = last_returns.period
    inner join breakdown_values
        on
            breakdown_values.scope = 'customer'
            and breakdown_values.entity_id = last_returns.customer_key
            and breakdown_values.breakdown = cells.breakdown
    group by
        last_returns.start_event, last_returns.return_event, last_returns.mode, last_returns.period,
        last_returns.cohort_start_date, cells.breakdown, breakdown_values.breakdown_value,
        last_returns.interval_index
),

counted as (
    select
        cohorts.cohort_start_date,
        cohorts.period,
        cohorts.mode,
        cohorts.start_event,
        cohorts.return_event,
        cohorts.breakdown,
        cohorts.breakdown_value,
        intervals.interval_index,
        intervals.is_complete,
        cohorts.cohort_size,
        coalesce(bounded.bounded_count, 0) as bounded_count,
        case when intervals.is_complete then sum(coalesce(last_return_counts.customer_count, 0)) over (
            partition by
                cohorts.start_event, cohorts.return_event, cohorts.mode, cohorts.period, cohorts.cohort_start_date,
                cohorts.breakdown, cohorts.breakdown_value
            order by intervals.interval_index desc
            rows between unbounded preceding and current row
        ) end as unbounded_count
    from cohorts
    inner join intervals
        on
            intervals.mode = cohorts.mode
            and intervals.period = cohorts.period
            and intervals.cohort_start_date = cohorts.cohort_start_date
    left join bounded
        on
            bounded.start_event = cohorts.start_event
            and bounded.return_event = cohorts.return_event
            and bounded.mode = cohorts.mode
            and bounded.period = cohorts.period
            and bounded.cohort_start_date = cohorts.cohort_start_date
            and bounded.breakdown = cohorts.breakdown
            and bounded.breakdown_value = cohorts.breakdown_value
            and bounded.interval_index = intervals.interval_index
    left join last_return_counts
        on
            last_return_counts.start_event = cohorts.start_event
            and last_return_counts.return_event = cohorts.return_event
            and last_return_counts.mode = cohorts.mode
            and last_return_counts.period = cohorts.period
            and last_return_counts.cohort_start_date = cohorts.cohort_start_date
            and last_return_counts.breakdown = cohorts.breakdown
            and last_return_counts.breakdown_value = cohorts.breakdown_value
            and last_return_counts.interval_index = intervals.interval_index
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
    cast(unbounded_count as bigint) as unbounded_count,
    case when is_complete then safe_ratio(bounded_count, cohort_size) end as bounded_ratio,
    case when is_complete then wilson_low(bounded_count, cohort_size) end as bounded_ratio_low,
    case when is_complete then wilson_high(bounded_count, cohort_size) end as bounded_ratio_high,
    case when is_complete then safe_ratio(unbounded_count, cohort_size) end as unbounded_ratio,
    case when is_complete then wilson_low(unbounded_count, cohort_size) end as unbounded_ratio_low,
    case when is_complete then wilson_high(unbounded_count, cohort_size) end as unbounded_ratio_high,
    is_complete
from counted
