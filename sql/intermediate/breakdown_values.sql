with
journey_values as (
    select
        'journey' as scope,
        cast(journey_id as varchar) as entity_id,
        first_channel as channel,
        first_source as source,
        first_medium as medium,
        first_campaign as campaign,
        segment,
        experiment_variant
    from journeys
    where status <> 'service'
),

customer_values as (
    select
        'customer' as scope,
        customer_key as entity_id,
        first_channel as channel,
        first_source as source,
        first_medium as medium,
        first_campaign as campaign,
        rule_segment as segment,
        experiment_variant
    from customers
    where first_touch_at is not null
),

entities as (
    select * from journey_values
    union all
    select * from customer_values
),

long_form as (
    select scope, entity_id, 'none' as breakdown, '(all)' as named_value from entities
    union all
    select scope, entity_id, 'channel' as breakdown, channel as named_value from entities
    union all
    select scope, entity_id, 'source' as breakdown, source as named_value from entities
    union all
    select scope, entity_id, 'medium' as breakdown, medium as named_value from entities
    union all
    select scope, entity_id, 'campaign' as breakdown, campaign as named_value from entities
    union all
    select scope, entity_id, 'segment' as breakdown, segment as named_value from entities
    union all
    select scope, entity_id, 'variant' as breakdown, experiment_variant as named_value from entities
),

named as (
    select scope, entity_id, breakdown, coalesce(named_value, '(none)') as named_value from long_form
),

sizes as (
    select scope, breakdown, named_value, count(*) as entity_count
    from named
    group by scope, breakdown, named_value
),

ranked as (
    select
        scope,
        breakdown,
        named_value,
        row_number() over (
            partition by scope, breakdown order by entity_count desc, named_value
        ) as size_rank
    from sizes
)

select
    named.scope,
    named.entity_id,
    named.breakdown,
    case
        when ranked.size_rank <= parameters.breakdown_limit then named.named_value else '(other)'
    end as breakdown_value
from named
inner join ranked
    on
        ranked.scope = named.scope
        and ranked.breakdown = named.breakdown
        and ranked.named_value = named.named_value
cross join parameters
