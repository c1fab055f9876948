-- How customers fare by RFM segment, as of data_as_of.
with
counted as (
    select
        customers.segment,
        customers.recency_score,
        customers.frequency_score,
        customers.monetary_score,
        count(*) as customer_count,
        cast(sum(customers.revenue) as decimal(18, 2)) as revenue,
        cast(sum(customer_totals.decided_journey_count) as bigint) as decided_journey_count,
        cast(sum(customer_totals.converted_journey_count) as bigint) as converted_journey_count,
        cast(sum(customer_totals.month_count) as bigint) as month_count,
        cast(sum(customer_totals.retained_month_count) as bigint) as retained_month_count
    from customers
    inner join customer_totals on customer_totals.customer_key = customers.customer_key
    group by customers.segment, customers.recency_score, customers.frequency_score, customers.monetary_score
)

select
    segment,
    recency_score,
    frequency_score,
    monetary_score,
    customer_count,
    revenue,
    safe_ratio(converted_journey_count, decided_journey_count) as conversion_ratio,
    safe_ratio(retained_month_count, month_count) as retention_ratio,
    decided_journey_count,
    converted_journey_count,
    wilson_low(converted_journey_count, decided_journey_count) as conversion_ratio_low,
    wilson_high(converted_journey_count, decided_journey_count) as conversion_ratio_high,
    month_count,
    retained_month_count,
    wilson_low(retained_month_count, month_count) as retention_ratio_low,
    wilson_high(retained_month_count, month_count) as retention_ratio_high
from counted
