with
controls as (
    select experiment, customer_count, converted_count
    from experiment_counts
    where is_control
),

compared as (
    select
        experiment_counts.experiment,
        experiment_counts.variant,
        experiment_counts.is_control,
        experiment_counts.customer_count,
        experiment_counts.converted_count,
        experiment_counts.pending_count,
        experiment_counts.excluded_count,
        experiment_counts.revenue,
        experiment_tests.p_value,
        case when not experiment_counts.is_control then controls.customer_count end as control_customer_count,
        case when not experiment_counts.is_control then controls.converted_count end as control_converted_count
    from experiment_counts
    inner join experiment_tests
        on
            experiment_tests.experiment = experiment_counts.experiment
            and experiment_tests.variant = experiment_counts.variant
    left join controls on controls.experiment = experiment_counts.experiment
)

select
    experiment,
    variant,
    is_control,
    customer_count,
    converted_count,
    safe_ratio(converted_count, customer_count) as conversion_ratio,
    safe_ratio(converted_count, customer_count) - safe_ratio(control_converted_count, control_customer_count) as lift,
    newcombe_low(converted_count, customer_count, control_converted_count, control_customer_count) as lift_low,
    newcombe_high(converted_count, customer_count, control_converted_count, control_customer_count) as lift_high,
    p_value,
    amount_per(revenue, customer_count) as revenue_per_customer,
    wilson_low(converted_count, customer_count) as conversion_ratio_low,
    wilson_high(converted_count, customer_count) as conversion_ratio_high,
    revenue,
    pending_count,
    excluded_count
from compared
