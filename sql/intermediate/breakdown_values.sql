-- What each journey and customer counts under in each breakdown, resolved once at its first touch.
with
journey_values as (
    select
        'journey' as scope,
        cast(journey_id as string) as entity_id,
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

sizes as (
    select scope, breakdown, named_value, count(*) as entity_count
    from long_form
    where named_value is not null
    group by scope, breakdown, named_value
),

-- Over all periods, so that a value's name does not depend on the period; equal counts rank by name.
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
    long_form.scope,
    long_form.entity_id,
    long_form.breakdown,
    case
        when long_form.named_value is null then '(none)'
        when ranked.size_rank <= parameters.breakdown_limit then long_form.named_value
        else '(other)'
    end as breakdown_value
from long_form
left join ranked
    on
        ranked.scope = long_form.scope
        and ranked.breakdown = long_form.breakdown
        and ranked.named_value = long_form.named_value
cross join parameters
