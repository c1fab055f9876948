-- Households whose first order was in January, and how many of them ordered in each month after.
select interval_index, cohort_size, bounded_count, is_complete
from retention
where
    cohort_start_date = date '2017-01-01' and period = 'month' and mode = 'calendar' and breakdown = 'none'
    and start_event = 'first_order' and return_event = 'order'
order by interval_index
