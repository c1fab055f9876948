"""Journeys: one cycle toward a conversion. Source of the definition: docs/semantics.md, section 6.

Walking one customer's inbound touchpoints in order, a journey starts at the first touchpoint, where the gap is
strictly longer than `journey_timeout`, and, after a conversion, at the next conversion or at the first touchpoint
of a pre-conversion stage outside the converting touchpoint's session, whichever is first.

The walk has state (has this journey converted?), yet needs no loop: between two conversions at most one start is
due to the first of them, so it is the first candidate of that segment.
"""

from __future__ import annotations

from datetime import datetime

import duckdb

from schemas.config import Config
from schemas.uuid5 import JOURNEY_NAMESPACE
from transforms.event_sql import quoted
from transforms.sessions import microseconds
from transforms.stages import segment_sql

JOURNEY_ID_SQL = f"uuid5_of('{JOURNEY_NAMESPACE}', journey_first_event_id::varchar)"
"""SQL of `journey_id`: UUIDv5 over the first event's id."""


def journey_starts_sql(config: Config, *, source: str) -> str:
    """SQL that adds `journey_first_event_id` to every row of `source` (NULL: in no journey).

    Columns in: event_id, customer_key, occurred_at, direction, is_conversion, is_pre_conversion,
    session_first_event_id. An outbound touchpoint belongs to the latest journey started before it if it lies
    within the timeout of the last inbound touchpoint by then.
    """
    timeout = microseconds(config.journey_timeout)
    return f"""
    with lined_up as (
        select
            *,
            epoch_us(occurred_at) - epoch_us(
                last_value(case when direction = 'inbound' then occurred_at end ignore nulls) over before
            ) as gap_microseconds,
            last_value(case when is_conversion then session_first_event_id end ignore nulls) over before
                as converting_session,
            coalesce(count(case when is_conversion then 1 end) over before, 0) as conversions_before
        from {source}
        window before as (
            partition by customer_key order by occurred_at, event_id
            rows between unbounded preceding and 1 preceding
        )
    ),
    candidates as (
        select
            *,
            direction = 'inbound' and (gap_microseconds is null or gap_microseconds > {timeout}) as is_gap,
            direction = 'inbound' and conversions_before > 0 and (
                is_conversion
                or (is_pre_conversion and session_first_event_id is distinct from converting_session)
                or gap_microseconds > {timeout}
            ) as is_candidate
        from lined_up
    ),
    starts as (
        select
            *,
            is_gap or (is_candidate and count(case when is_candidate then 1 end) over (
                partition by customer_key, conversions_before order by occurred_at, event_id
                rows between unbounded preceding and current row
            ) = 1) as is_journey_start
        from candidates
    ),
    carried as (
        select
            *,
            last_value(case when is_journey_start then event_id end ignore nulls) over (
                partition by customer_key order by occurred_at, event_id
                rows between unbounded preceding and current row
            ) as latest_start
        from starts
    )
    select
        * exclude (
            gap_microseconds, converting_session, conversions_before, is_gap, is_candidate, is_journey_start,
            latest_start
        ),
        case
            when customer_key is null then null
            when direction = 'inbound' or gap_microseconds <= {timeout} then latest_start
        end as journey_first_event_id
    from carried"""


def build(con: duckdb.DuckDBPyConnection, *, config: Config, data_as_of: datetime) -> None:
    """Make `journeys` (grain: journey) from `touchpoints`, `orders`, `tickets` and `stage_visits`.

    Times and counts are of inbound touchpoints, `friction_count` is of all. Status at `data_as_of`, in this order:
    converted, service, abandoned, active.
    """
    pre_conversion = ", ".join(quoted(definition.stage) for definition in config.stages if definition.is_pre_conversion)
    con.execute(f"""
        create or replace table journeys as
        with placed as (
            select *, {{'moment': occurred_at, 'event': event_id}} as place
            from touchpoints where journey_id is not null
        ),
        walked as (
            select
                journey_id,
                any_value(customer_key) as customer_key,
                min(occurred_at) as started_at,
                max(occurred_at) as ended_at,
                arg_min(stage, place) filter (stage is not null) as entry_stage,
                arg_max(stage, stage_index) as furthest_stage,
                bool_or(stage in ({pre_conversion})) as has_pre_conversion,
                arg_min(channel, place) as first_channel,
                arg_max(channel, place) as last_channel,
                count(distinct channel) as channel_count,
                count(distinct session_id) as session_count,
                count(*) as touchpoint_count,
                avg(csat_rating) as csat_average,
                arg_max(nps_score, place) filter (nps_score is not null) as nps_last,
                min(place) as first_place
            from placed where direction = 'inbound'
            group by journey_id
        ),
        all_touchpoints as (
            select
                journey_id,
                count(*) filter (is_friction) as friction_count,
                arg_min(experiment || ' / ' || variant, place)
                    filter (event_type = 'experiment_viewed') as experiment_variant
            from placed group by journey_id
        ),
        bought as (
            select journey_id, min(ordered_at) as converted_at, sum(revenue) as revenue from orders group by journey_id
        ),
        helped as (
            select
                journey_id, count(*) as ticket_count,
                max((epoch_us(solved_at) - epoch_us(created_at)) / 1e6) as longest_resolution_seconds
            from tickets where journey_id is not null group by journey_id
        ),
        paths as (
            select journey_id, string_agg(stage, ' > ' order by visit_index) as path
            from stage_visits group by journey_id
        ),
        {_conversions(config)}
        select
            journey_id, walked.customer_key,
            row_number() over (partition by walked.customer_key order by first_place) as journey_index,
            started_at, ended_at,
            case
                when conversions.converted_at is not null then 'converted'
                when entry_stage is not null and not has_pre_conversion then 'service'
                when epoch_us(timestamp {quoted(data_as_of.replace(tzinfo=None).isoformat(sep=" "))})
                    - epoch_us(ended_at) > {microseconds(config.journey_timeout)} then 'abandoned'
                else 'active'
            end as status,
            entry_stage, furthest_stage, first_channel, last_channel, channel_count,
            channel_count > 1 as is_omnichannel,
            session_count, touchpoint_count, friction_count,
            coalesce(ticket_count, 0) as ticket_count, longest_resolution_seconds, csat_average, nps_last,
            conversions.converted_at,
            (epoch_us(conversions.converted_at) - epoch_us(started_at)) / 1e6 as time_to_convert_seconds,
            coalesce(bought.revenue, 0)::decimal(18, 2) as revenue,
            path,
            first_touch.source as first_source, first_touch.medium as first_medium,
            first_touch.campaign as first_campaign, first_touch.segment as segment, experiment_variant
        from walked
        left join all_touchpoints using (journey_id)
        left join bought using (journey_id)
        left join helped using (journey_id)
        left join paths using (journey_id)
        left join conversions using (journey_id)
        left join (
            select event_id, source, medium, campaign, {segment_sql(config)} as segment from touchpoints
        ) as first_touch on first_touch.event_id = first_place.event
        order by customer_key, journey_index""")


def _conversions(config: Config) -> str:
    """A journey holds at most one conversion: the next one starts another journey."""
    return f"""conversions as (
            select journey_id, min(occurred_at) as converted_at
            from touchpoints
            where journey_id is not null and direction = 'inbound' and coalesce({config.conversion}, false)
            group by journey_id
        )"""
