"""Sessions: runs of one customer's inbound touchpoints in one channel. Source: docs/semantics.md, section 4.

A gap strictly longer than the channel's timeout starts a new session; a support ticket is one session without
timeout. A web run (what the gaps leave) is also cut every 24 hours from its start and where the campaign changes.
"""

from __future__ import annotations

from datetime import timedelta

import duckdb

from schemas.config import Config
from schemas.uuid5 import SESSION_NAMESPACE


def microseconds(duration: timedelta) -> int:
    """A duration in whole microseconds."""
    return duration // timedelta(microseconds=1)


def session_starts_sql(config: Config, *, source: str) -> str:
    """SQL that adds `session_first_event_id` to the inbound rows of `source`; other rows are left out.

    Columns in: event_id, customer_key, channel, ticket_id, campaign, occurred_at, direction. Ties: `event_id`.
    """
    timeouts = " ".join(
        f"when '{channel}' then {microseconds(timeout)}" for channel, timeout in config.session_timeout.items()
    )
    limit = microseconds(config.web_session_limit)
    return f"""
    with inbound as (
        select
            *,
            case when channel = 'support' then ticket_id end as session_ticket_id,
            case channel {timeouts} end as timeout_microseconds,
            epoch_us(occurred_at) as instant
        from {source}
        where direction = 'inbound' and customer_key is not null
    ),
    neighbours as (
        select
            *,
            lag(instant) over ordered as previous_at,
            last_value(campaign ignore nulls) over before as previous_campaign,
            last_value(case when campaign is not null then instant end ignore nulls) over before as previous_campaign_at
        from inbound
        window
            ordered as (partition by customer_key, channel, session_ticket_id order by occurred_at, event_id),
            before as (
                partition by customer_key, channel, session_ticket_id order by occurred_at, event_id
                rows between unbounded preceding and 1 preceding
            )
    ),
    gaps as (
        select
            *,
            previous_at is null
                or (session_ticket_id is null and instant - previous_at > timeout_microseconds) as is_run_start
        from neighbours
    ),
    runs as (
        select
            *,
            last_value(case when is_run_start then instant end ignore nulls) over (
                partition by customer_key, channel, session_ticket_id order by occurred_at, event_id
                rows between unbounded preceding and current row
            ) as run_started_at
        from gaps
    ),
    starts as (
        select
            *,
            is_run_start
            or (channel = 'web' and (instant - run_started_at) // {limit} > (previous_at - run_started_at) // {limit})
            or (channel = 'web' and coalesce(
                campaign <> previous_campaign and previous_campaign_at >= run_started_at, false
            )) as is_session_start
        from runs
    )
    select
        * exclude (
            session_ticket_id, timeout_microseconds, instant, previous_at, previous_campaign, previous_campaign_at,
            is_run_start, run_started_at, is_session_start
        ),
        last_value(case when is_session_start then event_id end ignore nulls) over (
            partition by customer_key, channel, session_ticket_id order by occurred_at, event_id
            rows between unbounded preceding and current row
        ) as session_first_event_id
    from starts"""


def build(con: duckdb.DuckDBPyConnection) -> None:
    """Make `sessions` (grain: session) from `touchpoints` and `orders`.

    `journey_id` is that of the first touchpoint, `journey_count` says whether the session spans more; source,
    medium and campaign are each the first non-NULL one; counts are of inbound touchpoints.
    """
    con.execute("""
        create or replace table sessions as
        with grouped as (
            select
                session_id,
                any_value(customer_key) as customer_key,
                arg_min(journey_id, place) as journey_id,
                count(distinct journey_id) as journey_count,
                any_value(channel) as channel,
                min(occurred_at) as started_at,
                max(occurred_at) as ended_at,
                count(*) as touchpoint_count,
                arg_min(event_type, place) as entry_event_type,
                arg_max(event_type, place) as exit_event_type,
                arg_min(source, place) filter (source is not null) as source,
                arg_min(medium, place) filter (medium is not null) as medium,
                arg_min(campaign, place) filter (campaign is not null) as campaign
            from (select *, {'moment': occurred_at, 'event': event_id} as place from touchpoints)
            where session_id is not null
            group by session_id
        ),
        bought as (
            select session_id, sum(revenue) as revenue from orders group by session_id
        )
        select
            session_id, customer_key, journey_id, journey_count, channel, started_at, ended_at,
            (epoch_us(ended_at) - epoch_us(started_at)) / 1e6 as duration_seconds,
            touchpoint_count, entry_event_type, exit_event_type, source, medium, campaign,
            touchpoint_count = 1 as is_bounce,
            bought.session_id is not null as is_converted,
            coalesce(revenue, 0)::decimal(18, 2) as revenue
        from grouped
        left join bought using (session_id)
        order by customer_key, started_at, session_id""")


SESSION_ID_SQL = f"uuid5_of('{SESSION_NAMESPACE}', session_first_event_id::varchar)"
"""SQL of `session_id`: UUIDv5 over the first event's id."""
