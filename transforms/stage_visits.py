"""Stage visits: consecutive staged touchpoints of one stage in one journey. Source: docs/semantics.md, section 6."""

from __future__ import annotations

import duckdb


def build(con: duckdb.DuckDBPyConnection) -> None:
    """Make `stage_visits` (grain: visit of a stage in a journey) from `touchpoints`.

    Unstaged touchpoints in between do not break a visit. `exited_at` is the next visit's `entered_at`, in the last
    visit its last touchpoint's time. `visit_index` counts from 1. Ties: `event_id`.
    """
    con.execute("""
        create or replace table stage_visits as
        with staged as (
            select
                journey_id, customer_key, stage, stage_index, occurred_at, event_id,
                stage is distinct from lag(stage) over in_journey as is_entry
            from touchpoints
            where journey_id is not null and direction = 'inbound' and stage is not null
            window in_journey as (partition by journey_id order by occurred_at, event_id)
        ),
        numbered as (
            select
                *,
                count(case when is_entry then 1 end) over (
                    partition by journey_id order by occurred_at, event_id
                    rows between unbounded preceding and current row
                ) as visit_index
            from staged
        ),
        visits as (
            select
                journey_id, visit_index,
                any_value(customer_key) as customer_key, any_value(stage) as stage,
                any_value(stage_index) as stage_index,
                min(occurred_at) as entered_at, max(occurred_at) as last_touchpoint_at,
                count(*) as touchpoint_count
            from numbered group by journey_id, visit_index
        )
        select
            journey_id, customer_key, visit_index, stage, entered_at,
            coalesce(lead(entered_at) over in_journey, last_touchpoint_at) as exited_at,
            touchpoint_count,
            lead(stage) over in_journey as next_stage,
            row_number() over (partition by journey_id, stage order by visit_index) > 1 as is_reentry,
            stage_index, last_touchpoint_at
        from visits
        window in_journey as (partition by journey_id order by visit_index)
        order by customer_key, journey_id, visit_index""")
