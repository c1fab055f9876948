-- The functions of duckdb.sql for Spark 4, name by name, so that the same models run on both.
-- The session runs with spark.sql.session.timeZone = UTC and spark.sql.timestampType = TIMESTAMP_NTZ.

create or replace temporary function seconds_between(earlier timestamp_ntz, later timestamp_ntz)
    returns double
    return (unix_micros(cast(later as timestamp)) - unix_micros(cast(earlier as timestamp))) / 1e6d;

create or replace temporary function local_date(utc_timestamp timestamp_ntz, time_zone string)
    returns date
    return cast(convert_timezone('UTC', time_zone, utc_timestamp) as date);

create or replace temporary function local_midnight(local_day date, time_zone string)
    returns timestamp_ntz
    return convert_timezone(time_zone, 'UTC', cast(local_day as timestamp_ntz));

create or replace temporary function period_start(local_day date, period string, week_starts_on int)
    returns date
    return case period
        when 'day' then local_day
        when 'week' then date_sub(local_day, (weekday(local_day) + 1 - week_starts_on + 7) % 7)
        when 'month' then trunc(local_day, 'MM')
    end;

create or replace temporary function period_add(local_day date, period string, number bigint)
    returns date
    return case period
        when 'day' then date_add(local_day, cast(number as int))
        when 'week' then date_add(local_day, cast(7 * number as int))
        when 'month' then add_months(local_day, cast(number as int))
    end;

create or replace temporary function periods_between(earlier_start date, later_start date, period string)
    returns bigint
    return case period
        when 'day' then datediff(later_start, earlier_start)
        when 'week' then cast(floor(datediff(later_start, earlier_start) / 7) as bigint)
        when 'month' then (year(later_start) - year(earlier_start)) * 12 + month(later_start) - month(earlier_start)
    end;

create or replace temporary function add_seconds(utc_timestamp timestamp_ntz, seconds bigint)
    returns timestamp_ntz
    return utc_timestamp + make_dt_interval(0, 0, 0, seconds);

create or replace temporary function safe_ratio(numerator double, denominator double)
    returns double
    return numerator / nullif(denominator, 0);

create or replace temporary function wilson_low(successes double, trials double)
    returns double
    return case when trials > 0 then greatest(0.0d, (
        successes / trials + 3.8414588206941236d / (2 * trials)
        - 1.959963984540054d * sqrt(
            successes / trials * (1 - successes / trials) / trials + 3.8414588206941236d / (4 * trials * trials)
        )
    ) / (1 + 3.8414588206941236d / trials)) end;

create or replace temporary function wilson_high(successes double, trials double)
    returns double
    return case when trials > 0 then least(1.0d, (
        successes / trials + 3.8414588206941236d / (2 * trials)
        + 1.959963984540054d * sqrt(
            successes / trials * (1 - successes / trials) / trials + 3.8414588206941236d / (4 * trials * trials)
        )
    ) / (1 + 3.8414588206941236d / trials)) end;

create or replace temporary function newcombe_low(
    successes double, trials double, base_successes double, base_trials double
)
    returns double
    return safe_ratio(successes, trials) - safe_ratio(base_successes, base_trials) - sqrt(
        power(safe_ratio(successes, trials) - wilson_low(successes, trials), 2)
        + power(wilson_high(base_successes, base_trials) - safe_ratio(base_successes, base_trials), 2)
    );

create or replace temporary function newcombe_high(
    successes double, trials double, base_successes double, base_trials double
)
    returns double
    return safe_ratio(successes, trials) - safe_ratio(base_successes, base_trials) + sqrt(
        power(wilson_high(successes, trials) - safe_ratio(successes, trials), 2)
        + power(safe_ratio(base_successes, base_trials) - wilson_low(base_successes, base_trials), 2)
    );

create or replace temporary function odds_ratio(
    successes double, failures double, base_successes double, base_failures double
)
    returns double
    return case
        when
            successes + failures > 0 and base_successes + base_failures > 0
            and successes + base_successes > 0 and failures + base_failures > 0
        then
            (successes + 0.5d) * (base_failures + 0.5d) / ((failures + 0.5d) * (base_successes + 0.5d))
    end;

create or replace temporary function odds_ratio_low(
    successes double, failures double, base_successes double, base_failures double
)
    returns double
    return odds_ratio(successes, failures, base_successes, base_failures) * exp(-1.959963984540054d * sqrt(
        1 / (successes + 0.5d) + 1 / (failures + 0.5d) + 1 / (base_successes + 0.5d) + 1 / (base_failures + 0.5d)
    ));

create or replace temporary function odds_ratio_high(
    successes double, failures double, base_successes double, base_failures double
)
    returns double
    return odds_ratio(successes, failures, base_successes, base_failures) * exp(1.959963984540054d * sqrt(
        1 / (successes + 0.5d) + 1 / (failures + 0.5d) + 1 / (base_successes + 0.5d) + 1 / (base_failures + 0.5d)
    ));

create or replace temporary function amount_per(amount decimal(18, 2), number bigint)
    returns decimal(18, 2)
    return cast((cast(amount * 200 as bigint) + number) div (2 * nullif(number, 0)) * 0.01bd as decimal(18, 2));
