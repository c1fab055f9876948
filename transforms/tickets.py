"""Tickets: one row per `ticket_id`. Source of the definition: docs/semantics.md, sections 5 and 11."""

from __future__ import annotations

import duckdb


def build(con: duckdb.DuckDBPyConnection) -> None:
    """Make `tickets` (grain: ticket) from `touchpoints`.

    Customer and journey are those of the first `ticket_created`; of the ticket's first event where its creation
    was never seen (`created_at` is NULL then). `reopened_count`: customer replies and reopenings that follow a
    solve without another of them between.
    """
    con.execute("""
        create or replace table tickets as
        with events as (
            select
                *,
                {'moment': occurred_at, 'event': event_id} as place,
                case
                    when event_type = 'ticket_solved' then 'solve'
                    when event_type = 'ticket_reopened' then 'return'
                    when event_type = 'ticket_replied' and author = 'customer' then 'return'
                end as turn
            from touchpoints where ticket_id is not null
        ),
        turns as (
            select
                ticket_id, turn,
                lag(turn) over (partition by ticket_id order by occurred_at, event_id) as previous_turn
            from events where turn is not null
        ),
        reopened as (
            select ticket_id, count(*) as reopened_count
            from turns where turn = 'return' and previous_turn = 'solve' group by ticket_id
        ),
        grouped as (
            select
                ticket_id,
                arg_min({'customer_key': customer_key, 'journey_id': journey_id},
                    {'other': event_type <> 'ticket_created', 'place': place}) as origin,
                min(occurred_at) filter (event_type = 'ticket_created') as created_at,
                min(occurred_at) filter (event_type = 'ticket_replied' and author = 'agent') as first_reply_at,
                max(occurred_at) filter (event_type = 'ticket_solved') as solved_at,
                count(*) filter (event_type = 'ticket_replied') as reply_count,
                arg_max(csat_rating, place) filter (csat_rating is not null) as csat_rating
            from events group by ticket_id
        )
        select
            ticket_id, origin.customer_key as customer_key, origin.journey_id as journey_id, created_at,
            first_reply_at, solved_at, coalesce(reopened_count, 0) as reopened_count, reply_count, csat_rating
        from grouped
        left join reopened using (ticket_id)
        order by ticket_id""")
