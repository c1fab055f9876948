"""Orders: one row per `order_id`, whoever sent it. From `customer_events` to `order_facts`, later `orders`.

Source of the definition: docs/semantics.md, section 5. The same order often arrives twice under different event
ids (a browser pixel and the shop's webhook): it belongs to its strongest identified customer, and that customer's
first `order_completed` of it is the conversion. The others stay touchpoints, convert nothing and are counted.
"""

from __future__ import annotations

import duckdb

from schemas.config import Config
from transforms.event_sql import quoted


def find(con: duckdb.DuckDBPyConnection, *, config: Config) -> None:
    """Make the temporary `order_facts`.

    Columns in: `customer_events`. Columns out: order_id, customer_key, event_id and occurred_at of the conversion,
    channel, amount and currency as sent, revenue (NULL without a rate) and refund_amount (in the order's currency),
    is_amount_left_out (it or a refund has no rate; counted), source_event_count, order_index (from 1, by
    `occurred_at`, `event_id` of the customer's conversions). Grain: one order of a customer. An order none of
    whose events has a customer is left out and counted.
    """
    _create_rates(con, config)
    con.execute("""
        create or replace temp table order_facts as
        with order_events as (
            select
                coalesce(order_id, event_id::varchar) as order_id, customer_key, resolved_strength, event_id,
                occurred_at, channel, amount, currency
            from customer_events
            where event_type = 'order_completed'
        ),
        owners as (
            select
                order_id,
                arg_min(customer_key, {
                    'is_anonymous': not starts_with(customer_key, 'c:'), 'strength': resolved_strength,
                    'moment': occurred_at, 'event': event_id
                }) filter (customer_key is not null) as customer_key,
                count(*) as source_event_count,
                arg_min({'amount': amount, 'currency': currency}, {'moment': occurred_at, 'event': event_id})
                    filter (amount is not null) as any_price
            from order_events
            group by order_id
        ),
        conversions as (
            select
                order_id, customer_key,
                arg_min(
                    {'event_id': event_id, 'moment': occurred_at, 'channel': channel, 'amount': amount,
                     'currency': currency},
                    {'moment': occurred_at, 'event': event_id}
                ) as first_event
            from order_events
            group by order_id, customer_key
        ),
        refunds as (
            select order_id, currency, sum(amount) as amount
            from customer_events
            where event_type = 'order_refunded' and order_id is not null and amount is not null
            group by order_id, currency
        ),
        priced as (
            select
                order_id, owners.customer_key, first_event.event_id as event_id, first_event.moment as occurred_at,
                first_event.channel as channel, source_event_count,
                -- A copy may know the price that the conversion's own event lacks.
                case when first_event.amount is null then any_price.amount else first_event.amount end as amount,
                case when first_event.amount is null then any_price.currency else first_event.currency end as currency
            from owners
            join conversions using (order_id, customer_key)
        ),
        refunded as (
            select
                priced.order_id,
                sum((refunds.amount * case
                    when refunds.currency = priced.currency then 1 else refund_rate.rate / order_rate.rate
                end)::decimal(18, 2)) as refund_amount,
                bool_or(refunds.currency is distinct from priced.currency
                    and (refund_rate.rate is null or order_rate.rate is null)) as has_refund_left_out
            from priced
            join refunds using (order_id)
            left join currency_rates as refund_rate on refund_rate.currency = refunds.currency
            left join currency_rates as order_rate on order_rate.currency = priced.currency
            group by priced.order_id
        )
        select
            order_id, customer_key, event_id, occurred_at, channel, amount, priced.currency as currency,
            (amount * rate)::decimal(18, 2) as revenue,
            coalesce(refund_amount, 0)::decimal(18, 2) as refund_amount,
            (amount is not null and rate is null) or coalesce(has_refund_left_out, false) as is_amount_left_out,
            source_event_count,
            row_number() over (partition by customer_key order by occurred_at, event_id) as order_index
        from priced
        left join refunded using (order_id)
        left join currency_rates on currency_rates.currency = priced.currency""")
    _count(con)


def _create_rates(con: duckdb.DuckDBPyConnection, config: Config) -> None:
    rates = {**config.currency_rates, config.reporting_currency: 1}
    rows = ", ".join(f"({quoted(currency)}, {rate}::decimal(18, 8))" for currency, rate in rates.items())
    con.execute(f"create or replace temp table currency_rates as from (values {rows}) as t(currency, rate)")


def _count(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("""
        insert into build_counts by name
        with facts as (
            select
                count(*) as order_count, count(*) filter (is_amount_left_out) as no_rate_count,
                sum(source_event_count) - count(*) as copy_count
            from order_facts
        ),
        named as (
            select count(distinct coalesce(order_id, event_id::varchar)) as named_count
            from customer_events where event_type = 'order_completed'
        ),
        counts as (from facts, named)
        select 'unconverted_currency_ratio' as check_name, 'orders' as table_name, no_rate_count as numerator,
            order_count as denominator, no_rate_count / nullif(order_count, 0) as observed from counts
        union all
        select 'order_copy_count', 'orders', coalesce(copy_count, 0), order_count,
            copy_count / nullif(order_count, 0) from counts
        union all
        select 'order_without_customer_count', 'orders', named_count - order_count, named_count,
            (named_count - order_count) / nullif(named_count, 0) from counts""")


def build(con: duckdb.DuckDBPyConnection) -> None:
    """Make `orders` (grain: order) from `order_facts` and the conversions' places in `touchpoints`."""
    con.execute("""
        create or replace table orders as
        select
            facts.order_id, facts.customer_key, touchpoints.journey_id, touchpoints.session_id, facts.channel,
            facts.occurred_at as ordered_at, facts.order_index, facts.amount, facts.refund_amount, facts.currency,
            facts.source_event_count, facts.revenue, facts.event_id
        from order_facts as facts
        join touchpoints on touchpoints.event_id = facts.event_id
        order by facts.customer_key, facts.order_index""")
