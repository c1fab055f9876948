"""Deduplication and what takes part in a build: from `bronze_touchpoints` to `kept_events`.

Source of the definitions: docs/semantics.md, sections 1 and 2. In this order:

1. one copy per `event_id`: the earliest by (`received_at`, cluster, topic, partition, offset), valid copies only;
2. events without consent to analytics are left out;
3. events that an `exclude` rule matches are left out;
4. events later than `data_as_of` wait in bronze (link events too).

`build_counts` keeps how many each step left out.
"""

from __future__ import annotations

from datetime import UTC, datetime

import duckdb

from schemas.config import Config
from transforms.event_sql import quoted

ORDER = "received_at, _cluster, _topic, _partition, _offset"


def build(
    con: duckdb.DuckDBPyConnection,
    *,
    config: Config,
    data_as_of: datetime | None,
    not_before: datetime | None = None,
) -> datetime | None:
    """Make the temporary table `kept_events` and start `build_counts`; answers the `data_as_of` in force.

    Columns out: those of `bronze_touchpoints`. Grain: one distinct event that takes part in this build.
    `data_as_of` None: the greatest inbound `occurred_at` not later than the greatest `landed_at`; None is
    answered only when there is no such event.
    """
    _find_copies(con)
    con.execute(f"""
        create or replace temp view deduplicated_events as
        select bronze.*, {excluded_sql(config)} as is_excluded
        from bronze_touchpoints as bronze
        where not exists (from dropped_copies as copy where copy.bronze_row = bronze.rowid)""")
    eligible = "is_analytics_allowed and not is_excluded"
    derived = [instant for instant in (_latest_inbound(con, eligible), not_before) if instant]
    as_of = data_as_of or max(derived, default=None)
    limit = f"timestamp {quoted(_naive(as_of).isoformat(sep=' '))}" if as_of else "timestamp '-infinity'"
    con.execute(f"""
        create or replace temp table kept_events as
        select * exclude (is_excluded) from deduplicated_events
        where {eligible} and occurred_at <= {limit}""")
    _count(con, limit)
    return as_of


def excluded_sql(config: Config) -> str:
    """Condition: a rule leaves the event out."""
    return " or ".join(f"coalesce({rule.when}, false)" for rule in config.exclude) or "false"


def _naive(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(tzinfo=None) if instant.tzinfo else instant


def _find_copies(con: duckdb.DuckDBPyConnection) -> None:
    # Only ids that repeat are ordered: a window over all rows costs twice as much as over these few.
    con.execute(f"""
        create or replace temp table dropped_copies as
        with repeated_ids as (
            select event_id from bronze_touchpoints group by event_id having count(*) > 1
        ),
        copies as (
            select bronze.rowid as bronze_row, event_id, payload_hash, {ORDER}
            from bronze_touchpoints as bronze
            where event_id in (from repeated_ids)
        ),
        ordered as (
            select
                bronze_row, payload_hash,
                row_number() over earliest_first as copy_number,
                first_value(payload_hash) over earliest_first as kept_hash
            from copies
            window earliest_first as (partition by event_id order by {ORDER})
        )
        select bronze_row, payload_hash <> kept_hash as is_different
        from ordered where copy_number > 1""")


def _latest_inbound(con: duckdb.DuckDBPyConnection, eligible: str) -> datetime | None:
    # A rejected record has landed too: its `received_at` in the quarantine is when it did.
    row = con.execute(f"""
        select max(occurred_at) from deduplicated_events
        where direction = 'inbound' and {eligible}
            and event_type not in ('identity_linked', 'identity_unlinked')
            and occurred_at <= (
                select max(landed_at) from (
                    select landed_at from bronze_touchpoints union all select received_at from quarantine
                )
            )""").fetchone()
    return row[0].replace(tzinfo=UTC) if row and row[0] else None


def _count(con: duckdb.DuckDBPyConnection, limit: str) -> None:
    con.execute(f"""
        create or replace table build_counts as
        with bronze as (
            select
                count(*) as accepted_count,
                count(*) filter (is_clock_skewed) as skewed_count
            from bronze_touchpoints
        ),
        rejected as (select count(*) as rejected_count from quarantine),
        copies as (
            select count(*) as copy_count, count(*) filter (is_different) as different_count from dropped_copies
        ),
        events as (
            select
                count(*) as event_count,
                count(*) filter (not is_analytics_allowed) as without_consent_count,
                count(*) filter (is_analytics_allowed and is_excluded) as excluded_count,
                count(*) filter (
                    is_analytics_allowed and not is_excluded and occurred_at > {limit}
                ) as future_count
            from deduplicated_events
        ),
        counts as (from bronze, rejected, copies, events)
        select 'quarantined_ratio' as check_name, 'quarantine' as table_name,
            rejected_count as numerator, accepted_count + rejected_count as denominator from counts
        union all
        select 'duplicate_ratio', 'touchpoints', copy_count, accepted_count from counts
        union all
        select 'different_copy_count', 'touchpoints', different_count, copy_count from counts
        union all
        select 'without_consent_count', 'touchpoints', without_consent_count, event_count from counts
        union all
        select 'excluded_count', 'touchpoints', excluded_count, event_count from counts
        union all
        select 'future_ratio', 'touchpoints', future_count, event_count from counts
        union all
        select 'clock_skewed_ratio', 'touchpoints', skewed_count, accepted_count from counts""")
    con.execute("alter table build_counts add column observed double")
    con.execute("update build_counts set observed = numerator / nullif(denominator, 0)")
