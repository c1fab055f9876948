-- Per household and campaign: targeted by mail, ordered while the campaign ran (days in New York), redeemed a coupon of it.
with
campaigns as (
    select *
    from (values
        ('1', 'Type B', date '2017-03-03', date '2017-04-09'),
        ('2', 'Type B', date '2017-03-08', date '2017-04-09'),
        ('3', 'Type C', date '2017-03-13', date '2017-05-08'),
        ('4', 'Type B', date '2017-03-29', date '2017-04-30'),
        ('5', 'Type B', date '2017-04-03', date '2017-05-07'),
        ('6', 'Type C', date '2017-04-19', date '2017-05-21'),
        ('7', 'Type B', date '2017-04-24', date '2017-05-28'),
        ('8', 'Type A', date '2017-05-08', date '2017-06-25'),
        ('9', 'Type B', date '2017-05-31', date '2017-07-02'),
        ('10', 'Type B', date '2017-06-28', date '2017-07-30'),
        ('11', 'Type B', date '2017-07-12', date '2017-08-27'),
        ('12', 'Type B', date '2017-07-12', date '2017-08-13'),
        ('13', 'Type A', date '2017-08-08', date '2017-09-24'),
        ('14', 'Type C', date '2017-09-04', date '2017-11-08'),
        ('15', 'Type C', date '2017-09-20', date '2018-02-28'),
        ('16', 'Type B', date '2017-10-04', date '2017-11-05'),
        ('17', 'Type B', date '2017-10-18', date '2017-11-19'),
        ('18', 'Type A', date '2017-10-30', date '2017-12-24'),
        ('19', 'Type B', date '2017-11-15', date '2017-12-17'),
        ('20', 'Type C', date '2017-11-27', date '2018-02-05'),
        ('21', 'Type B', date '2017-12-06', date '2018-01-07'),
        ('22', 'Type B', date '2017-12-06', date '2018-01-07'),
        ('23', 'Type B', date '2017-12-28', date '2018-02-04'),
        ('24', 'Type C', date '2016-11-14', date '2017-01-16'),
        ('25', 'Type B', date '2016-12-06', date '2017-02-05'),
        ('26', 'Type B', date '2016-12-28', date '2017-02-19'),
        ('27', 'Type A', date '2017-02-08', date '2017-03-26')
    ) as campaigns (campaign, campaign_type, start_date, end_date)
),

targeted as (
    select distinct touchpoints.customer_key, campaigns.campaign, campaign_type, start_date, end_date
    from touchpoints
    inner join campaigns on campaigns.campaign = touchpoints.campaign
    where touchpoints.event_type = 'mail_sent'
),

shopped as (
    select distinct targeted.customer_key, targeted.campaign
    from targeted
    inner join touchpoints
        on touchpoints.customer_key = targeted.customer_key
        and touchpoints.event_type = 'order_completed'
        and (touchpoints.occurred_at at time zone 'America/New_York')::date
            between targeted.start_date and targeted.end_date
),

redeemed as (
    select distinct customer_key, campaign from touchpoints where event_type = 'coupon_applied'
)

select
    targeted.campaign_type,
    count(*) as targeted_count,
    count(shopped.customer_key) as shopped_count,
    count(case when shopped.customer_key is not null then redeemed.customer_key end) as redeemed_count
from targeted
left join shopped on shopped.customer_key = targeted.customer_key and shopped.campaign = targeted.campaign
left join redeemed on redeemed.customer_key = targeted.customer_key and redeemed.campaign = targeted.campaign
group by targeted.campaign_type
order by targeted.campaign_type
