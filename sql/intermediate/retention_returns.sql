-- The intervals in which each member of retention_members returned, by mode and period; unlimited, complete or not.
with
returned as (
    select 'order' as return_event, customer_key, ordered_at as returned_at, event_id
    from orders
    union all
    select 'any' as return_event, customer_key, occurred_at as returned_at, event_id
    from touchpoints
    where direction = 'inbound'
),

-- The days of return: the calendar's, and 24-hour days since the start; weeks and months follow from them.
-- The start itself is a return only where start and return are the same event.
return_days as (
    select distinct
        retention_members.member_number, retention_members.start_date,
        local_date(returned.returned_at, parameters.reporting_timezone) as return_date,
        cast(
            floor(seconds_between(retention_members.started_at, returned.returned_at) / 86400) as bigint
        ) as elapsed_days
    from retention_members
    inner join returned
        on
            returned.return_event = retention_members.return_event
            and returned.customer_key = retention_members.customer_key
            and (
                returned.returned_at > retention_members.started_at
                or (
                    returned.returned_at = retention_members.started_at
                    and returned.event_id > retention_members.start_event_id
                )
                or (
                    returned.event_id = retention_members.start_event_id
                    and (
                        (retention_members.start_event = 'first_order' and retention_members.return_event = 'order')
                        or (retention_members.start_event = 'first_touch' and retention_members.return_event = 'any')
                    )
                )
            )
    cross join parameters
),

placed as (
    select
        return_days.member_number, return_days.elapsed_days,
        periods.period, periods.rolling_days,
        period_start(return_days.start_date, periods.period, parameters.week_starts_on) as cohort_start_date,
        period_start(return_days.return_date, periods.period, parameters.week_starts_on) as return_start_date
    from return_days
    cross join periods
    cross join parameters
)

select distinct
    member_number,
    'calendar' as mode,
    period,
    cohort_start_date,
    periods_between(cohort_start_date, return_start_date, period) as interval_index
from placed
union all
select distinct
    member_number,
    'rolling' as mode,
    period,
    cohort_start_date,
    cast(floor(elapsed_days / rolling_days) as bigint) as interval_index
from placed
