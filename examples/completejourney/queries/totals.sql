-- Orders, customers and revenue.
select count(*) as order_count, count(distinct customer_key) as customer_count, sum(revenue) as revenue from orders
