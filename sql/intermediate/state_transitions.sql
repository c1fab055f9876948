-- How often each state led to which: the absorbing Markov chain of decided journeys, as counts.
with
-- A journey that begins with its conversion goes from its start straight to the end.
starts as (
    select
        '(start)' as from_state,
        coalesce(conversion_steps.state, '(' || journeys.status || ')') as to_state
    from journeys
    left join conversion_steps
        on conversion_steps.journey_id = journeys.journey_id and conversion_steps.step_index = 1
    where journeys.status in ('converted', 'abandoned')
),

moves as (
    select from_state, to_state
    from starts
    union all
    select state as from_state, next_state as to_state
    from conversion_steps
)

select
    from_state,
    to_state,
    count(*) as transition_count
from moves
group by from_state, to_state
