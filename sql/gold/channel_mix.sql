-- How customers fare by the set of channels they use.
with
counted as (
    select
        customer_totals.channels,
        customer_totals.channel_count > 1 as is_omnichannel,
        count(*) as customer_count,
        cast(sum(customer_totals.journey_count) as bigint) as journey_count,
        cast(sum(customer_totals.decided_journey_count) as bigint) as decided_journey_count,
        cast(sum(customer_totals.converted_journey_count) as bigint) as converted_journey_count,
        cast(sum(customer_totals.month_count) as bigint) as month_count,
        cast(sum(customer_totals.retained_month_count) as bigint) as retained_month_count,
        cast(sum(customers.revenue) as decimal(18, 2)) as revenue
    from customer_totals
    inner join customers on customers.customer_key = customer_totals.customer_key
    where customer_totals.channel_count > 0
    group by customer_totals.channels, customer_totals.channel_count
)

select
    channels,
    is_omnichannel,
    customer_count,
    journey_count,
    safe_ratio(converted_journey_count, decided_journey_count) as conversion_ratio,
    safe_ratio(retained_month_count, month_count) as retention_ratio_next_period,
    amount_per(revenue, customer_count) as revenue_per_customer,
    decided_journey_count,
    converted_journey_count,
    wilson_low(converted_journey_count, decided_journey_count) as conversion_ratio_low,
    wilson_high(converted_journey_count, decided_journey_count) as conversion_ratio_high,
    month_count,
    retained_month_count,
    wilson_low(retained_month_count, month_count) as retention_ratio_low,
    wilson_high(retained_month_count, month_count) as retention_ratio_high,
    revenue
from counted
