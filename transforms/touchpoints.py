"""Touchpoints: one row per distinct event with its customer, stage, session and journey.

Source of the definitions: docs/semantics.md, sections 3 to 6. `prepare` attaches customers; `build` walks each
customer's touchpoints in total order (`occurred_at`, `event_id`) and writes the silver table `touchpoints`.
"""

from __future__ import annotations

import logging

import duckdb

from schemas.config import Config
from schemas.contracts import PROPERTY_FIELDS
from transforms.journeys import JOURNEY_ID_SQL, journey_starts_sql
from transforms.sessions import SESSION_ID_SQL, session_starts_sql
from transforms.stages import (
    friction_signals_sql,
    lifecycle_stage_sql,
    pre_conversion_sql,
    stage_index_sql,
    stage_sql,
)

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 3_000_000
BUCKETS = 64
"""Above `ROWS_AT_ONCE` the walk goes bucket by bucket (hash of customer_key): as fast, with a fraction of memory."""

COLUMNS = (
    "event_id", "customer_key", "channel", "event_type", "direction", "stage", "lifecycle_stage", "occurred_at",
    "received_at", "source_occurred_at", "is_clock_skewed", "session_id", "journey_id", "source", "medium",
    "campaign", "page_path", "product_id", "order_id", "ticket_id", "amount", "currency", "customer_order_index",
    "csat_rating", "nps_score", "experiment", "variant", "is_friction", "event_name", "properties", "_topic",
    "_partition", "_offset", "_cluster", "author", "coupon_code", "error_code", "store_id", "is_machine_open",
    "is_order_conversion", "days_since_first_order", "stage_index", "lifecycle_stage_index", "friction_signals",
    "is_conversion",
)  # fmt: skip


def prepare(con: duckdb.DuckDBPyConnection) -> None:
    """Make the temporary `customer_events`: kept events (link events left out) with their customer.

    Columns added: customer_key, resolved_strength. Grain: one event that becomes a touchpoint.
    """
    con.execute("""
        create or replace temp table customer_events as
        select events.*, customer_key, resolved_strength
        from kept_events as events
        join event_bundles using (identifiers)
        where event_type not in ('identity_linked', 'identity_unlinked')""")


def build(con: duckdb.DuckDBPyConnection, *, config: Config) -> None:
    """Make `touchpoints` from `customer_events` and `order_facts`."""
    row = con.execute("select count(*) from customer_events").fetchone()
    buckets = BUCKETS if row and row[0] > ROWS_AT_ONCE else 1
    for bucket in range(buckets):
        _rule(con, config, f"coalesce(hash(customer_key), 0) % {buckets} = {bucket}" if buckets > 1 else "true")
        _walk(con, config)
        target = "create or replace table touchpoints as" if bucket == 0 else "insert into touchpoints"
        con.execute(f"{target} {_touchpoints_sql(config)}")
    con.execute("drop table ruled; drop table walked; drop table session_ids; drop table journey_ids")
    list_frictions(con)
    _count(con)


def list_frictions(con: duckdb.DuckDBPyConnection) -> None:
    """Make `touchpoint_frictions` (event_id, signal): one row per friction signal that a touchpoint shows."""
    con.execute("""
        create or replace table touchpoint_frictions as
        select event_id, unnest(friction_signals) as signal from touchpoints where len(friction_signals) > 0""")


def _rule(con: duckdb.DuckDBPyConnection, config: Config, condition: str) -> None:
    """Make the temporary `ruled`: order counts, stages and friction of the events that meet `condition`.

    It holds what the walk needs and no more: windows sort and keep whole rows, so narrow ones cost a fraction.
    `event_row` is the row of `customer_events`.
    """
    con.execute(f"""
        create or replace temp table ruled as
        with numbered as (
            select
                events.event_row,
                facts.event_id is not null as is_order_conversion,
                count(facts.event_id) over walk as customer_order_index,
                min(facts.occurred_at) over walk as first_order_at
            from (
                select rowid as event_row, event_id, customer_key, occurred_at from customer_events where {condition}
            ) as events
            left join order_facts as facts on facts.event_id = events.event_id
            window walk as (
                partition by events.customer_key order by events.occurred_at, events.event_id
                rows between unbounded preceding and current row
            )
        ),
        counted as (
            select
                events.*, numbered.*,
                (epoch_us(occurred_at) - epoch_us(first_order_at)) // 86400000000 as days_since_first_order
            from customer_events as events
            join numbered on numbered.event_row = events.rowid
        ),
        staged as (
            select
                *,
                {stage_sql(config)} as stage,
                {lifecycle_stage_sql(config)} as lifecycle_stage,
                {friction_signals_sql(config)} as friction_signals,
                direction = 'inbound' and coalesce({config.conversion}, false) as is_conversion
            from counted
        )
        select
            event_row, event_id, customer_key, channel, direction, occurred_at, campaign, ticket_id,
            is_order_conversion, customer_order_index, days_since_first_order, stage, lifecycle_stage,
            friction_signals, is_conversion, {pre_conversion_sql(config, "stage")} as is_pre_conversion
        from staged""")


def _walk(con: duckdb.DuckDBPyConnection, config: Config) -> None:
    """Make the temporary `walked`: per `event_row` the first events of its session and journey."""
    steps = """
        select event_row, event_id, customer_key, channel, direction, occurred_at, campaign, ticket_id,
            is_conversion, is_pre_conversion
        from ruled"""
    con.execute(f"""
        create or replace temp table walked as
        with steps as ({steps}),
        sessions as ({session_starts_sql(config, source="steps")}),
        placed as (
            select
                steps.event_row, steps.event_id, steps.customer_key, steps.direction, steps.occurred_at,
                steps.is_conversion, steps.is_pre_conversion, sessions.session_first_event_id
            from steps left join sessions on sessions.event_row = steps.event_row
        ),
        walked as ({journey_starts_sql(config, source="placed")})
        select event_row, session_first_event_id, journey_first_event_id from walked""")
    # An id is a hash: one per session and journey costs less than one per touchpoint.
    for kind, id_sql in (("session", SESSION_ID_SQL), ("journey", JOURNEY_ID_SQL)):
        con.execute(f"""
            create or replace temp table {kind}_ids as
            select {kind}_first_event_id, {id_sql} as {kind}_id
            from (select distinct {kind}_first_event_id from walked)""")


def _touchpoints_sql(config: Config) -> str:
    properties = [name for name in PROPERTY_FIELDS if name != "order_id"]
    return f"""
    select
        events.event_id, events.customer_key, events.channel, event_type, events.direction, stage, lifecycle_stage,
        events.occurred_at, received_at, source_occurred_at, is_clock_skewed,
        session_id, journey_id,
        source, medium, events.campaign, page_path, product_id, order_id, events.ticket_id, amount, currency,
        case when events.customer_key is not null then customer_order_index end as customer_order_index,
        csat_rating, nps_score, experiment, variant,
        len(friction_signals) > 0 as is_friction,
        event_name, properties, _topic, _partition, _offset, _cluster,
        {", ".join(name for name in properties if name not in _LISTED)},
        is_order_conversion, days_since_first_order,
        {stage_index_sql(config, "stage")} as stage_index,
        {stage_index_sql(config, "lifecycle_stage")} as lifecycle_stage_index,
        friction_signals,
        is_conversion and events.customer_key is not null as is_conversion
    from walked
    join ruled on ruled.event_row = walked.event_row
    join customer_events as events on events.rowid = walked.event_row
    left join session_ids on session_ids.session_first_event_id = walked.session_first_event_id
    left join journey_ids on journey_ids.journey_first_event_id = walked.journey_first_event_id"""


_LISTED = ("page_path", "product_id", "ticket_id", "amount", "currency", "csat_rating", "nps_score")


def _count(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("""
        insert into build_counts by name
        with counts as (
            select
                count(*) as touchpoint_count,
                count(*) filter (customer_key is null) as unattributed_count,
                count(*) filter (direction = 'inbound') as inbound_count,
                count(*) filter (direction = 'inbound' and stage is null) as unstaged_count
            from touchpoints
        )
        select 'unattributed_ratio' as check_name, 'touchpoints' as table_name, unattributed_count as numerator,
            touchpoint_count as denominator, unattributed_count / nullif(touchpoint_count, 0) as observed from counts
        union all
        select 'unstaged_ratio', 'touchpoints', unstaged_count, inbound_count,
            unstaged_count / nullif(inbound_count, 0) from counts""")
