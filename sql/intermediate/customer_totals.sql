-- What each customer used and did, for the tables that compare groups of customers.
with
used_channels as (
    select
        customer_key,
        max(used_email) as used_email,
        max(used_store) as used_store,
        max(used_support) as used_support,
        max(used_web) as used_web
    from active_periods
    where period = 'month'
    group by customer_key
),

-- A month says something about coming back once the month after it is over.
followed_months as (
    select
        active_periods.customer_key,
        count(*) as month_count,
        count(*) filter (
            where active_periods.next_start_date = reporting_periods.period_start_date
        ) as retained_month_count
    from active_periods
    inner join reporting_periods
        on
            reporting_periods.period = active_periods.period
            and reporting_periods.period_start_date = period_add(
                active_periods.period_start_date, active_periods.period, 1
            )
    where active_periods.period = 'month' and reporting_periods.is_complete
    group by active_periods.customer_key
),

journey_counts as (
    select
        customer_key,
        count(*) as journey_count,
        count(*) filter (where status in ('converted', 'abandoned')) as decided_journey_count,
        count(*) filter (where status = 'converted') as converted_journey_count
    from journeys
    group by customer_key
)

select
    customers.customer_key,
    substring(
        concat(
            case when used_channels.used_email = 1 then ',email' else '' end,
            case when used_channels.used_store = 1 then ',store' else '' end,
            case when used_channels.used_support = 1 then ',support' else '' end,
            case when used_channels.used_web = 1 then ',web' else '' end
        ), 2
    ) as channels,
    coalesce(
        used_channels.used_email + used_channels.used_store + used_channels.used_support + used_channels.used_web, 0
    ) as channel_count,
    coalesce(journey_counts.journey_count, 0) as journey_count,
    coalesce(journey_counts.decided_journey_count, 0) as decided_journey_count,
    coalesce(journey_counts.converted_journey_count, 0) as converted_journey_count,
    coalesce(followed_months.month_count, 0) as month_count,
    coalesce(followed_months.retained_month_count, 0) as retained_month_count
from customers
left join used_channels on used_channels.customer_key = customers.customer_key
left join journey_counts on journey_counts.customer_key = customers.customer_key
left join followed_months on followed_months.customer_key = customers.customer_key
