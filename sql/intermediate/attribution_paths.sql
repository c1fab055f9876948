-- The paths that attribution looks at, session by session: one path per order, and one per abandoned journey.
with
conversions as (
    select
        order_id,
        customer_key,
        session_id,
        ordered_at,
        coalesce(revenue, 0) as revenue,
        row_number() over (partition by customer_key order by ordered_at, event_id) as conversion_number
    from orders
),

-- Sessions and conversions in one line of time. A session that starts at a conversion's very instant is "not later
-- than" it, so sessions come first; the frame takes all of one instant and kind, so that nothing hangs on their order.
timeline as (
    select customer_key, started_at as moment, 0 as is_conversion, session_id from sessions
    union all
    select customer_key, ordered_at as moment, 1 as is_conversion, null as session_id from conversions
),

-- A session leads to the first conversion that is not earlier than its start: it started after the one before.
next_conversions as (
    select
        customer_key,
        session_id,
        moment as started_at,
        1 + sum(is_conversion) over (
            partition by customer_key order by moment, is_conversion
            range between unbounded preceding and current row
        ) as conversion_number
    from timeline
),

-- `union` keeps the converting session once where the look-back holds it already.
conversion_sessions as (
    select conversions.order_id, next_conversions.session_id
    from next_conversions
    inner join conversions
        on
            conversions.customer_key = next_conversions.customer_key
            and conversions.conversion_number = next_conversions.conversion_number
    cross join parameters
    where
        next_conversions.session_id is not null
        and seconds_between(next_conversions.started_at, conversions.ordered_at)
        <= parameters.attribution_lookback_seconds
    union
    select order_id, session_id from conversions
)

select
    true as is_converted,
    conversions.order_id as path_id,
    conversion_sessions.session_id,
    conversions.ordered_at as converted_at,
    conversions.revenue
from conversion_sessions
inner join conversions on conversions.order_id = conversion_sessions.order_id
union all
select
    false as is_converted,
    cast(journeys.journey_id as string) as path_id,
    sessions.session_id,
    cast(null as timestamp) as converted_at,
    cast(null as decimal(18, 2)) as revenue
from journeys
inner join sessions on sessions.journey_id = journeys.journey_id
where journeys.status = 'abandoned'
