"""Customers: one row per `customer_key` with a touchpoint. Source: docs/semantics.md, sections 3, 9 and 13."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import duckdb

from schemas.config import Config
from transforms.event_sql import quoted
from transforms.stages import segment_sql


def _score(value: str, thresholds: Sequence[int | Decimal], *, ascending: bool) -> str:
    """Score 1 to 5 by four thresholds; ascending: reaching one earns a point, else staying within one does."""
    operator = ">=" if ascending else "<="
    return "1 + " + " + ".join(f"({value} {operator} {threshold})::int" for threshold in thresholds)


def build(con: duckdb.DuckDBPyConnection, *, config: Config, data_as_of: datetime) -> None:
    """Make `customers` from `touchpoints`, `orders` and the temporary `currency_rates`.

    Revenue and refunds are in the reporting currency; an amount without a rate is left out. First and last touch
    are inbound ones (NULL for a customer who was only ever contacted). `segment` is the RFM label (`r5f2m3`;
    `no_orders`), `rule_segment` the first rule segment at the first touch. `lifecycle_state` is the state in the
    reporting month that holds `data_as_of`.
    """
    as_of = f"timestamp {quoted(data_as_of.replace(tzinfo=None).isoformat(sep=' '))}"
    zone = quoted(config.reporting_timezone)
    recency = f"(epoch_us({as_of}) - epoch_us(last_order_at)) // 86400000000"
    con.execute(f"""
        create or replace table customers as
        with placed as (
            select *, {{'moment': occurred_at, 'event': event_id}} as place
            from touchpoints where customer_key is not null
        ),
        known as (
            select
                customer_key,
                arg_min(experiment || ' / ' || variant, place)
                    filter (event_type = 'experiment_viewed') as experiment_variant
            from placed group by customer_key
        ),
        touched as (
            select
                customer_key,
                min(occurred_at) as first_touch_at, max(occurred_at) as last_touch_at, min(place) as first_place,
                count(distinct channel) as channel_count
            from placed where direction = 'inbound' group by customer_key
        ),
        bought as (
            select
                customer_key, min(ordered_at) as first_order_at, max(ordered_at) as last_order_at,
                count(*) as order_count, coalesce(sum(revenue), 0)::decimal(18, 2) as revenue,
                sum((refund_amount * rate)::decimal(18, 2))::decimal(18, 2) as refund_amount
            from orders left join currency_rates using (currency)
            group by customer_key
        ),
        scored as (
            select
                *,
                {_score(recency, config.rfm.recency_days, ascending=False)} as recency_score,
                {_score("order_count", config.rfm.frequency, ascending=True)} as frequency_score,
                {_score("revenue", config.rfm.monetary, ascending=True)} as monetary_score
            from bought
        ),
        this_month as (
            select date_trunc('month', timezone({zone}, {as_of}::timestamptz))::date as month
        ),
        months as (
            select
                customer_key,
                bool_or(touched_month = month) as is_active,
                bool_or(touched_month = (month - interval 1 month)::date) as was_active
            from (
                select distinct
                    customer_key,
                    date_trunc('month', timezone({zone}, occurred_at::timestamptz))::date as touched_month
                from placed where direction = 'inbound'
            ) cross join this_month
            group by customer_key
        )
        select
            known.customer_key, first_touch_at,
            first_touch.channel as first_channel, first_touch.source as first_source,
            first_touch.medium as first_medium, first_touch.campaign as first_campaign,
            first_order_at, last_touch_at,
            coalesce(order_count, 0) as order_count,
            coalesce(revenue, 0)::decimal(18, 2) as revenue,
            coalesce(channel_count, 0) as channel_count,
            coalesce('r' || recency_score || 'f' || frequency_score || 'm' || monetary_score, 'no_orders') as segment,
            case
                when first_touch_at is null then null
                when date_trunc('month', timezone({zone}, first_touch_at::timestamptz))::date = month then 'new'
                when is_active and was_active then 'returning'
                when is_active then 'resurrected'
                when was_active then 'dormant'
                else 'inactive'
            end as lifecycle_state,
            first_touch.rule_segment, experiment_variant,
            coalesce(refund_amount, 0)::decimal(18, 2) as refund_amount,
            recency_score, frequency_score, monetary_score, last_order_at
        from known
        cross join this_month
        left join touched using (customer_key)
        left join scored using (customer_key)
        left join months using (customer_key)
        left join (
            select event_id, channel, source, medium, campaign, {segment_sql(config)} as rule_segment
            from touchpoints
        ) as first_touch on first_touch.event_id = first_place.event
        order by customer_key""")
