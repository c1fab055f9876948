"""A year of a made-up shop as `bronze_touchpoints`, for benchmarks that are too large to go through Kafka.

`fill` makes as many events as asked for in DuckDB alone, the same ones every time (hashes, no random generator), and
lets the real transforms build silver from them. The shop: about 20 events per customer, two thirds of the people known
to it; visits in four channels, their number per person with a heavy tail; orders, some of them reported twice or
refunded; tickets, ratings, an experiment, sources and 24 campaigns.
"""

from __future__ import annotations

from datetime import UTC, datetime

import duckdb

from schemas.config import Config
from transforms import bronze, silver

DATA_AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
FIRST_DAY, DAYS = "2025-01-01", 360
"""The days on which a visit may begin; the longest ends before `DATA_AS_OF`."""
PERSONS_PER_EVENT = 1 / 12
"""More than the events need: whoever comes after the last event is cut off."""

_BROWSED = (
    "page_viewed page_viewed products_searched product_viewed product_viewed product_viewed product_added "
    "product_removed cart_viewed error_encountered"
)
_BOUGHT = "product_added cart_viewed checkout_started order_completed"
# channel, seconds between events, how it opens, what is drawn from, how it closes, how many are drawn (least, most),
# how often of 100 with known and with anonymous people
VISITS = (
    ("web", 40, "page_viewed", _BROWSED, "", 0, 9, 24, 70),
    ("web", 40, "page_viewed", "", "", 0, 0, 10, 22),
    ("web", 40, "page_viewed signed_in", _BROWSED, "", 1, 8, 14, 0),
    ("web", 40, "page_viewed signed_in", _BROWSED, _BOUGHT, 1, 6, 7, 0),
    ("web", 40, "page_viewed", _BROWSED, f"{_BOUGHT} order_completed", 1, 6, 2, 4),
    ("web", 3600, "page_viewed signed_in", "product_viewed", f"{_BOUGHT} order_refunded", 1, 2, 1, 0),
    ("web", 40, "experiment_viewed page_viewed", _BROWSED, "", 0, 8, 4, 4),
    ("web", 90, "page_viewed signed_in", "onboarding_step_completed", "account_activated", 1, 3, 3, 0),
    ("web", 90, "page_viewed signed_in", "product_viewed", "product_reviewed nps_submitted", 0, 1, 2, 0),
    ("email", 5400, "email_sent email_delivered", "", "", 0, 0, 14, 0),
    ("email", 5400, "email_sent email_delivered email_opened", "email_link_clicked", "", 0, 2, 9, 0),
    ("store", 300, "loyalty_card_scanned", "", "order_completed", 0, 0, 5, 0),
    ("support", 14400, "ticket_created", "ticket_replied", "ticket_solved csat_submitted", 1, 4, 4, 0),
    ("support", 60, "call_started", "", "", 0, 0, 1, 0),
)


def fill(con: duckdb.DuckDBPyConnection, *, touchpoints: int, config: Config) -> None:
    """Make the events and all of silver; `bronze_touchpoints` is dropped then."""
    bronze.create_tables(con)
    _make_visits(con, touchpoints)
    _make_events(con)
    for table in ("kinds", "visits"):
        con.execute(f"drop table {table}")
    con.execute("begin")
    silver.build(con, config=config, data_as_of=DATA_AS_OF)
    con.execute("commit")
    con.execute("drop table bronze_touchpoints")
    con.execute("checkpoint")
    [(count,)] = con.execute("select count(*) from touchpoints").fetchall()
    if count != touchpoints:
        raise AssertionError(f"silver holds {count:,} touchpoints, not {touchpoints:,}")


def _make_visits(con: duckdb.DuckDBPyConnection, touchpoints: int) -> None:
    """The temporary `kinds` (one per percent, known or not) and `visits`, which add up to `touchpoints` events."""
    con.execute("""
        create or replace temp macro chance(salt, a, b) as (hash(salt, a, b) >> 11) / 9007199254740992.0;
        create or replace temp macro pick(names, salt, a, b) as
            names[1 + cast(floor(len(names) * chance(salt, a, b)) as integer)];
        create or replace temp macro words(text) as case when text = '' then []::varchar[] else split(text, ' ') end""")
    values = ", ".join(str(kind) for kind in VISITS)
    con.execute(f"""
        create or replace temp table kinds as
        with named as (
            select
                channel, pace, words(opening) as opening, words(pool) as pool, words(closing) as closing,
                least_drawn, most_drawn, known, anonymous
            from (values {values}) as t(
                channel, pace, opening, pool, closing, least_drawn, most_drawn, known, anonymous
            )
        ),
        weighed as (
            select *, true as is_known, unnest(range(known)) as copy from named
            union all
            select *, false as is_known, unnest(range(anonymous)) as copy from named
        )
        select *, row_number() over (partition by is_known order by pace, opening, closing, pool, copy) - 1 as slot
        from weighed""")
    con.execute(f"""
        create or replace temp table visits as
        with persons as (
            select
                person, person % 3 > 0 as is_known,
                {DAYS} * greatest(0, 1.25 * chance('arrives', person, 0) - 0.25) as arrives,
                case when person % 3 > 0 then 1.8 else 0.4 end as eagerness
            from range({int(touchpoints * PERSONS_PER_EVENT) + 10}) as t(person)
        ),
        each as (
            select
                person, is_known, arrives,
                unnest(range(
                    1 + cast(least(200, eagerness * pow(1 - chance('visits', person, 0), -0.6)) as integer)
                )) as visit
            from persons
        ),
        dated as (
            select
                person, visit, kinds.is_known, channel, pace, opening, pool, closing,
                least_drawn + cast(
                    floor((most_drawn - least_drawn + 1) * chance('drawn', person, visit)) as bigint
                ) as drawn,
                cast(floor(
                    arrives + case when visit = 0 then 0 else
                        ({DAYS} - arrives) * pow(chance('day', person, visit), 1.2)
                    end
                ) as integer) as day,
                12 * (chance('morning', person, visit) + chance('evening', person, visit)) as hour
            from each
            join kinds
                on kinds.is_known = each.is_known
                and kinds.slot = cast(floor(100 * chance('kind', person, visit)) as bigint)
        ),
        measured as (
            select
                *, len(opening) + drawn + len(closing) as length,
                cast(
                    sum(len(opening) + drawn + len(closing)) over (order by person, visit) as bigint
                ) as events_so_far
            from dated
        )
        select
            * exclude (length, events_so_far),
            events_so_far - length as first_event,
            least(length, {touchpoints} - (events_so_far - length)) as length
        from measured
        where events_so_far - length < {touchpoints}""")
    [(made,)] = con.execute("select sum(length) from visits").fetchall()
    if made != touchpoints:
        raise AssertionError(f"the visits hold {made:,} events, not {touchpoints:,}")


def _make_events(con: duckdb.DuckDBPyConnection) -> None:
    """`bronze_touchpoints` from `visits`, about in the order of time, as nights bring them."""
    outbound = ", ".join(f"'{event_type}'" for event_type in bronze.OUTBOUND_EVENT_TYPES)
    con.execute(f"""
        insert into bronze_touchpoints by name
        with steps as (
            select *, unnest(range(length)) as step from (from visits order by day)
        ),
        events as (
            select
                *, first_event + step as number, person || '-' || visit as name,
                case
                    when step < len(opening) then opening[step + 1]
                    when step < len(opening) + drawn then pick(pool, step, person, visit)
                    else closing[step - len(opening) - drawn + 1]
                end as event_type,
                date '{FIRST_DAY}' + to_days(day) + to_microseconds(cast(
                    (hour * 3600 + pace * (step + 0.9 * chance('jitter', first_event, step))) * 1e6 as bigint
                )) as occurred_at,
                case
                    when channel = 'email' then 'newsletter'
                    when channel = 'web' then pick(
                        ['google', 'google', 'bing', 'instagram', null, null, null], 'source', person, visit
                    )
                end as source
            from steps
        ),
        described as (
            select
                *,
                case when event_type in ('order_completed', 'order_refunded') then 'o-' || name end as order_id,
                case when event_type in ('order_completed', 'order_refunded') then
                    cast(8 - 45 * ln(1 - chance('amount', person, visit)) as decimal(18, 2))
                end as amount,
                case when channel = 'support' and event_type <> 'call_started' then 't-' || name end as ticket_id,
                case when event_type = 'ticket_replied' then
                    case step % 2 when 1 then 'agent' else 'customer' end
                end as author,
                case when channel = 'web' then '/' || event_type || '/' || hash(number) % 500 end as page_path,
                case when starts_with(event_type, 'product_') then
                    'sku-' || cast(2000 * pow(chance('product', number, 0), 2) as integer)
                end as product_id,
                case when channel = 'store' then 'store-' || person % 40 end as store_id,
                case when event_type = 'error_encountered' then 'E' || hash(number) % 20 end as error_code,
                case when event_type = 'csat_submitted' then
                    pick([1, 2, 3, 4, 4, 5, 5, 5], 'csat', person, visit)
                end as csat_rating,
                case when event_type = 'nps_submitted' then
                    pick([2, 5, 6, 7, 8, 8, 9, 9, 10, 10], 'nps', person, visit)
                end as nps_score,
                case
                    when channel = 'email' then
                        '"customer_id":"' || person || '","email_hmac":"' || md5('' || person) || '"'
                    when channel = 'store' then '"customer_id":"' || person || '","loyalty_id":"L' || person || '"'
                    when channel = 'support' then '"customer_id":"' || person || '"'
                    else '"anonymous_id":"ck-' || person || '-' || hash(person, visit) % 2 || '"'
                        || case when is_known and step > 0 and opening[2] = 'signed_in' then
                            ',"customer_id":"' || person || '"' else ''
                        end
                end as who
            from events
        )
        select
            'synthetic' as _cluster, 'journeys.' || channel || '.v1' as _topic, hash(person) % 3 as _partition,
            number as _offset, occurred_at + interval 1 second as landed_at, hash(number) as payload_hash,
            cast(md5('' || number) as uuid) as event_id,
            channel, event_type, source,
            case
                when source = 'newsletter' then 'email'
                when source = 'instagram' or source = 'google' and person % 2 = 0 then 'cpc'
                when source is not null then 'organic'
            end as medium,
            case when medium in ('cpc', 'email') then 'c-' || month(occurred_at) || '-' || visit % 2 end as campaign,
            case when event_type = 'experiment_viewed' then 'checkout_layout' end as experiment,
            case when event_type = 'experiment_viewed' then
                case hash('variant', person) % 2 when 0 then 'control' else 'one_page' end
            end as variant,
            occurred_at, occurred_at + interval 300 milliseconds as received_at, false as is_clock_skewed,
            case
                when event_type in ({outbound}) or author = 'agent' then 'outbound' else 'inbound'
            end as direction,
            true as is_analytics_allowed,
            '{{' || who || '}}' as identifiers,
            page_path, product_id, store_id, order_id, amount,
            case when amount is not null then 'USD' end as currency,
            error_code, ticket_id, author, csat_rating, nps_score,
            json_merge_patch('{{}}', json_object(
                'page_path', page_path, 'product_id', product_id, 'store_id', store_id, 'order_id', order_id,
                'amount', amount, 'error_code', error_code, 'ticket_id', ticket_id, 'author', author,
                'csat_rating', csat_rating, 'nps_score', nps_score
            ))::varchar as properties
        from described""")
