-- Functions that models may call besides standard SQL: the same names in every engine (see spark.sql).
-- Each statement makes one; nothing else belongs here.

-- Seconds from earlier to later, with microseconds; negative where the order is reversed.
create or replace macro seconds_between(earlier, later) as
    (epoch_us(later) - epoch_us(earlier)) / 1e6;

-- The calendar date of a UTC timestamp in a time zone.
create or replace macro local_date(utc_timestamp, time_zone) as
    cast(timezone(time_zone, timezone('UTC', utc_timestamp)) as date);

-- The UTC timestamp of a date's midnight in a time zone.
create or replace macro local_midnight(local_day, time_zone) as
    timezone('UTC', timezone(time_zone, cast(local_day as timestamp)));

-- The first day of the day, week or month that holds a date; week_starts_on is 1 (monday) to 7 (sunday).
create or replace macro period_start(local_day, period, week_starts_on) as
    case period
        when 'day' then cast(local_day as date)
        when 'week' then cast(
            cast(local_day as date) - cast((isodow(cast(local_day as date)) - week_starts_on + 7) % 7 as integer)
            as date
        )
        when 'month' then cast(date_trunc('month', cast(local_day as date)) as date)
    end;

-- A period's first day, moved by a number of whole periods.
create or replace macro period_add(local_day, period, number) as
    case period
        when 'day' then cast(cast(local_day as date) + cast(number as integer) as date)
        when 'week' then cast(cast(local_day as date) + 7 * cast(number as integer) as date)
        when 'month' then cast(cast(local_day as date) + to_months(cast(number as integer)) as date)
    end;

-- How many whole periods lie between two periods' first days.
create or replace macro periods_between(earlier_start, later_start, period) as
    case period
        when 'day' then cast(later_start as date) - cast(earlier_start as date)
        when 'week' then (cast(later_start as date) - cast(earlier_start as date)) // 7
        when 'month' then (year(later_start) - year(earlier_start)) * 12 + month(later_start) - month(earlier_start)
    end;

-- A timestamp, later by a number of seconds.
create or replace macro add_seconds(utc_timestamp, seconds) as
    make_timestamp(epoch_us(utc_timestamp) + cast(seconds as bigint) * 1000000);

-- A ratio as double; NULL at 0/0.
create or replace macro safe_ratio(numerator, denominator) as
    cast(numerator as double) / nullif(cast(denominator as double), 0);

-- Bounds of the 95 % Wilson score interval of a proportion; NULL without trials.
create or replace macro wilson_low(successes, trials) as
    case when trials > 0 then greatest(0.0, (
        successes / cast(trials as double) + 3.8414588206941236 / (2 * trials)
        - 1.959963984540054 * sqrt(
            successes / cast(trials as double) * (1 - successes / cast(trials as double)) / trials
            + 3.8414588206941236 / (4 * cast(trials as double) * trials)
        )
    ) / (1 + 3.8414588206941236 / trials)) end;

create or replace macro wilson_high(successes, trials) as
    case when trials > 0 then least(1.0, (
        successes / cast(trials as double) + 3.8414588206941236 / (2 * trials)
        + 1.959963984540054 * sqrt(
            successes / cast(trials as double) * (1 - successes / cast(trials as double)) / trials
            + 3.8414588206941236 / (4 * cast(trials as double) * trials)
        )
    ) / (1 + 3.8414588206941236 / trials)) end;

-- Bounds of the 95 % Newcombe interval (hybrid of Wilson's) of a difference of two proportions; NULL without trials.
create or replace macro newcombe_low(successes, trials, base_successes, base_trials) as
    safe_ratio(successes, trials) - safe_ratio(base_successes, base_trials) - sqrt(
        power(safe_ratio(successes, trials) - wilson_low(successes, trials), 2)
        + power(wilson_high(base_successes, base_trials) - safe_ratio(base_successes, base_trials), 2)
    );

create or replace macro newcombe_high(successes, trials, base_successes, base_trials) as
    safe_ratio(successes, trials) - safe_ratio(base_successes, base_trials) + sqrt(
        power(wilson_high(successes, trials) - safe_ratio(successes, trials), 2)
        + power(safe_ratio(base_successes, base_trials) - wilson_low(base_successes, base_trials), 2)
    );

-- The odds ratio of two groups' outcomes, half a case added to every cell (Haldane, Anscombe), and the bounds of its
-- 95 % Woolf interval; NULL where nobody is in one of the groups, or all had the same outcome: nothing is compared then.
create or replace macro odds_ratio(successes, failures, base_successes, base_failures) as
    case
        when
            successes + failures > 0 and base_successes + base_failures > 0
            and successes + base_successes > 0 and failures + base_failures > 0
        then
            (cast(successes as double) + 0.5) * (cast(base_failures as double) + 0.5)
            / ((cast(failures as double) + 0.5) * (cast(base_successes as double) + 0.5))
    end;

create or replace macro odds_ratio_low(successes, failures, base_successes, base_failures) as
    odds_ratio(successes, failures, base_successes, base_failures) * exp(-1.959963984540054 * sqrt(
        1 / (cast(successes as double) + 0.5) + 1 / (cast(failures as double) + 0.5)
        + 1 / (cast(base_successes as double) + 0.5) + 1 / (cast(base_failures as double) + 0.5)
    ));

create or replace macro odds_ratio_high(successes, failures, base_successes, base_failures) as
    odds_ratio(successes, failures, base_successes, base_failures) * exp(1.959963984540054 * sqrt(
        1 / (cast(successes as double) + 0.5) + 1 / (cast(failures as double) + 0.5)
        + 1 / (cast(base_successes as double) + 0.5) + 1 / (cast(base_failures as double) + 0.5)
    ));

-- An amount that is not negative, shared out over a number, to the cent; half a cent goes up; NULL where the number is 0.
create or replace macro amount_per(amount, number) as
    cast(cast(
        (cast(cast(amount as decimal(38, 2)) * 200 as hugeint) + number) // (2 * nullif(number, 0)) as decimal(35, 0)
    ) * 0.01 as decimal(18, 2));
