-- Retention between any two events: the table `retention`, for definitions that journey.yml does not hold.
create or replace macro retention_of(
    start_event,
    return_event,
    period := 'month',
    mode := 'calendar',
    touches := 'inbound'
) as table
with
options as (
    select
        data_as_of, reporting_timezone, week_starts_on,
        case period
            when 'day' then day_intervals
            when 'week' then week_intervals
            when 'month' then month_intervals
            else error('retention_of: period is day, week or month')
        end as interval_limit,
        case period when 'day' then 1 when 'week' then 7 else 30 end as rolling_days
    from build_parameters
    where
        case when mode in ('calendar', 'rolling') then true else error('retention_of: mode is calendar or rolling') end
        and case
            when touches in ('inbound', 'outbound', 'any') then true
            else error('retention_of: touches are inbound, outbound or any')
        end
),

scope as not materialized (
    select customer_key, occurred_at, event_id, coalesce('custom:' || event_name, event_type) as event
    from touchpoints
    where touchpoints.customer_key is not null and (touches = 'any' or touchpoints.direction = touches)
),

starts as (
    select customer_key, ordered_at as started_at, event_id
    from orders
    where start_event = 'first_order' and order_index = 1
    union all
    select customer_key, min(occurred_at) as started_at, arg_min(event_id, row(occurred_at, event_id)) as event_id
    from scope
    where start_event <> 'first_order' and start_event in ('first_touch', event)
    group by customer_key
),

returns as (
    select customer_key, ordered_at as returned_at, event_id
    from orders
    where return_event = 'order'
    union all
    select customer_key, occurred_at as returned_at, event_id
    from scope
    where return_event <> 'order' and return_event in ('any', event)
),

members as (
    select
        starts.customer_key, starts.started_at, starts.event_id,
        period_start(
            local_date(timezone('UTC', starts.started_at), options.reporting_timezone), period, options.week_starts_on
        ) as cohort_start_date
    from starts
    cross join options
),

-- What comes after the start; the start itself only where start and return are the same event.
member_returns as (
    select distinct
        members.customer_key, members.cohort_start_date,
        case
            when mode = 'calendar' then periods_between(
                members.cohort_start_date,
                period_start(
                    local_date(timezone('UTC', returns.returned_at), options.reporting_timezone),
                    period,
                    options.week_starts_on
                ),
                period
            )
            else (epoch_us(returns.returned_at) - epoch_us(members.started_at))
                // (options.rolling_days * 86400000000)
        end as interval_index
    from members
    inner join returns on returns.customer_key = members.customer_key
    cross join options
    where
        returns.returned_at > members.started_at
        or (returns.returned_at = members.started_at and returns.event_id > members.event_id)
        or (
            returns.event_id = members.event_id
            and (
                start_event = return_event
                or (start_event = 'first_order' and return_event = 'order')
                or (start_event = 'first_touch' and return_event = 'any')
            )
        )
),

cohorts as (
    select cohort_start_date, count(*) as cohort_size
    from members
    group by cohort_start_date
),

-- In rolling mode an interval begins with the cohort's first possible start and ends with its last.
intervals as (
    select
        cohorts.cohort_start_date, cohorts.cohort_size, numbers.interval_index,
        timezone('UTC', case
            when mode = 'calendar' then local_midnight(
                period_add(cohorts.cohort_start_date, period, numbers.interval_index), options.reporting_timezone
            )
            else add_seconds(
                local_midnight(cohorts.cohort_start_date, options.reporting_timezone),
                numbers.interval_index * options.rolling_days * 86400
            )
        end) <= options.data_as_of as has_begun,
        timezone('UTC', case
            when mode = 'calendar' then local_midnight(
                period_add(cohorts.cohort_start_date, period, numbers.interval_index + 1), options.reporting_timezone
            )
            else add_seconds(
                local_midnight(period_add(cohorts.cohort_start_date, period, 1), options.reporting_timezone),
                (numbers.interval_index + 1) * options.rolling_days * 86400
            )
        end) <= options.data_as_of as is_complete
    from cohorts
    cross join options
    cross join (select unnest(range((select interval_limit from options))) as interval_index) as numbers
),

-- Until the last complete interval with a return a member counts as unbounded.
last_returns as (
    select
        member_returns.customer_key, member_returns.cohort_start_date,
        max(member_returns.interval_index) as interval_index
    from member_returns
    inner join intervals
        on
            intervals.cohort_start_date = member_returns.cohort_start_date
            and intervals.interval_index = member_returns.interval_index
            and intervals.is_complete
    group by member_returns.customer_key, member_returns.cohort_start_date
),

counted as (
    select
        intervals.cohort_start_date, intervals.interval_index, intervals.cohort_size, intervals.is_complete,
        coalesce(bounded.customer_count, 0) as bounded_count,
        case when intervals.is_complete then cast(sum(coalesce(lasts.customer_count, 0)) over (
            partition by intervals.cohort_start_date order by intervals.interval_index desc
            rows between unbounded preceding and current row
        ) as bigint) end as unbounded_count
    from intervals
    left join (
        select cohort_start_date, interval_index, count(*) as customer_count from member_returns group by all
    ) as bounded
        on
            bounded.cohort_start_date = intervals.cohort_start_date
            and bounded.interval_index = intervals.interval_index
    left join (
        select cohort_start_date, interval_index, count(*) as customer_count from last_returns group by all
    ) as lasts
        on lasts.cohort_start_date = intervals.cohort_start_date and lasts.interval_index = intervals.interval_index
    where intervals.has_begun
)

select
    cohort_start_date,
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
order by cohort_start_date, interval_index
