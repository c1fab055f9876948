-- Who is counted: every journey that is no service journey, and every customer with an inbound touchpoint, with the
-- day its cohort starts and the breakdown values it is counted under.
with journeys as (
    select * from journeys
),

customers as (
    select * from customers
),

parameters as (
    select * from parameters
),

members as (
    select
        'journey' as scope, cast(journey_id as varchar) as entity_key, customer_key, started_at,
        first_channel, first_source, first_medium, first_campaign, segment, experiment_variant, revenue
    from journeys
    where status <> 'service'
    union all
    select
        'customer' as scope, customer_key as entity_key, customer_key, first_touch_at as started_at,
        first_channel, first_source, first_medium, first_campaign, rule_segment as segment, experiment_variant, revenue
    from customers
    where first_touch_at is not null
)
