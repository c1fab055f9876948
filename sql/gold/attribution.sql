-- Which touches orders are owed to: the credits of every model, summed by channel, source and medium, and campaign.
with
touches as (
    select
        level,
        touch,
        count(*) filter (where is_converted) as touch_count,
        count(distinct case when is_converted then path_id end) as conversion_count,
        count(distinct case when not is_converted then path_id end) as abandoned_count
    from attribution_touches
    group by level, touch
),

-- Sums of decimals do not depend on the order of rows; sums of doubles do, in their last digits.
path_credits as (
    select
        level,
        model,
        touch,
        cast(sum(cast(credit as decimal(38, 18))) as double) as conversions,
        cast(sum(cast(revenue_credit as decimal(38, 18))) as double) as revenue,
        cast(null as double) as removal_effect
    from attribution_credits
    group by level, model, touch
),

totals as (
    select count(*) as conversions, coalesce(sum(revenue), 0) as revenue from orders
),

chain_credits as (
    select
        markov_credits.level,
        'markov' as model,
        markov_credits.touch,
        markov_credits.credit_share * cast(totals.conversions as double) as conversions,
        markov_credits.credit_share * cast(totals.revenue as double) as revenue,
        markov_credits.removal_effect
    from markov_credits
    cross join totals
),

credits as (
    select * from path_credits
    union all
    select * from chain_credits
),

models as (
    select distinct level, model from credits
)

-- A touch that only abandoned journeys hold has its row as well, with nothing to its credit (markov may give it some).
select
    models.level,
    models.model,
    touches.touch,
    coalesce(credits.conversions, 0) as conversions,
    coalesce(credits.revenue, 0) as revenue,
    credits.removal_effect,
    touches.touch_count,
    touches.conversion_count,
    touches.abandoned_count
from models
inner join touches on touches.level = models.level
left join credits
    on credits.level = models.level and credits.model = models.model and credits.touch = touches.touch
