-- Every answer to a survey with the stage its journey was in when asked, and the channel it speaks of.
with
answers as (
    select event_id, customer_key, journey_id, channel, ticket_id, occurred_at, csat_rating, nps_score
    from touchpoints
    where customer_key is not null and (csat_rating is not null or nps_score is not null)
),

-- A ticket's channel is that of its creation; of its first touchpoint where that was never seen.
ticket_touchpoints as (
    select
        ticket_id,
        channel,
        row_number() over (
            partition by ticket_id
            order by case when event_type = 'ticket_created' then 0 else 1 end, occurred_at, event_id
        ) as place
    from touchpoints
    where ticket_id in (select ticket_id from answers)
)

select
    answers.event_id,
    answers.customer_key,
    answers.journey_id,
    local_date(answers.occurred_at, parameters.reporting_timezone) as answered_date,
    stages_before.stage_index,
    coalesce(ticket_touchpoints.channel, answers.channel) as channel,
    answers.csat_rating,
    answers.csat_rating >= parameters.csat_satisfied_from as is_satisfied,
    answers.nps_score,
    case
        when answers.nps_score >= parameters.nps_promoter_from then 1
        when answers.nps_score <= parameters.nps_detractor_to then -1
        when answers.nps_score is not null then 0
    end as nps_class
from answers
left join stages_before on stages_before.event_id = answers.event_id
left join ticket_touchpoints on ticket_touchpoints.ticket_id = answers.ticket_id and ticket_touchpoints.place = 1
cross join parameters
