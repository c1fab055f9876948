-- What each touch on the path to an order earns of it, by every model whose credit is the path's own business.
--
-- first, last, position and j_shaped differ only in the percent that the two ends get; what they leave goes to the
-- touches between. Shapley's value needs no coalitions here: where v(S) is what the paths within S are worth, the game
-- is a sum of unanimity games, one per path, and the value of such a game is divided evenly among its members: the
-- path's distinct touches.
with
models as (
    select 'first' as model, 100 as first_percent, 0 as last_percent from parameters
    union all
    select 'last' as model, 0 as first_percent, 100 as last_percent from parameters
    union all
    select
        'position' as model, position_first_percent as first_percent, position_last_percent as last_percent
    from parameters
    union all
    select
        'j_shaped' as model, j_shaped_first_percent as first_percent, j_shaped_last_percent as last_percent
    from parameters
    union all
    select 'last_non_direct' as model, null as first_percent, null as last_percent from parameters
    union all
    select 'linear' as model, null as first_percent, null as last_percent from parameters
    union all
    select 'time_decay' as model, null as first_percent, null as last_percent from parameters
    union all
    select 'shapley' as model, null as first_percent, null as last_percent from parameters
),

-- Ages are taken from the path's last touch, not from the order: the factor is the same for all touches and falls out
-- of the shares, and the last weight is 1 however long the path or short the half-life.
touches as (
    select
        level, path_id, touch_index, touch, touch_count, revenue,
        coalesce(
            max(case when not is_direct then touch_index end) over (partition by level, path_id), touch_count
        ) as last_non_direct_index,
        cast(power(
            2,
            -seconds_between(touched_at, max(touched_at) over (partition by level, path_id))
            / parameters.attribution_half_life_seconds
        ) as decimal(38, 18)) as decay_weight,
        row_number() over (partition by level, path_id, touch order by touch_index) as occurrence
    from attribution_touches
    cross join parameters
    where is_converted
),

-- Sums of decimals and counts do not depend on the order of rows; sums of doubles do, in their last digits.
weighed as (
    select
        level, path_id, touch_index, touch, touch_count, revenue, last_non_direct_index, occurrence,
        safe_ratio(decay_weight, sum(decay_weight) over (partition by level, path_id)) as decay_share,
        count(case when occurrence = 1 then 1 end) over (partition by level, path_id) as distinct_touch_count
    from touches
),

credited as (
    select
        weighed.level, models.model, weighed.path_id, weighed.touch_index, weighed.touch, weighed.revenue,
        case
            when models.model = 'linear' then safe_ratio(1, touch_count)
            when models.model = 'time_decay' then decay_share
            when models.model = 'last_non_direct' and touch_index = last_non_direct_index then 1
            when models.model = 'last_non_direct' then 0
            when models.model = 'shapley' and occurrence = 1 then safe_ratio(1, distinct_touch_count)
            when models.model = 'shapley' then 0
            when touch_count = 1 then 1
            when touch_count = 2 and touch_index = 1 then safe_ratio(first_percent, first_percent + last_percent)
            when touch_count = 2 then safe_ratio(last_percent, first_percent + last_percent)
            when touch_index = 1 then safe_ratio(first_percent, 100)
            when touch_index = touch_count then safe_ratio(last_percent, 100)
            else safe_ratio(100 - first_percent - last_percent, 100 * (touch_count - 2))
        end as credit
    from weighed
    cross join models
)

select
    level,
    model,
    path_id as order_id,
    touch_index,
    touch,
    cast(credit as double) as credit,
    cast(revenue as double) * credit as revenue_credit
from credited
