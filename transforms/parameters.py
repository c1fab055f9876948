"""The small tables through which SQL models read journey.yml: no model holds a number of its own."""

from __future__ import annotations

from datetime import datetime, timedelta

import duckdb

from schemas.config import Config
from transforms.event_sql import quoted

BREAKDOWN_LIMIT = 50
SMALL_SAMPLE_COUNT = 25
CSAT_SATISFIED_FROM, NPS_PROMOTER_FROM, NPS_DETRACTOR_TO = 4, 9, 6
PATH_STEP_LIMIT, PATH_LIMIT = 20, 1_000
DAY_INTERVALS, WEEK_INTERVALS, MONTH_INTERVALS = 31, 26, 24
POSITION_FIRST_PERCENT, POSITION_LAST_PERCENT = 40, 40
J_SHAPED_FIRST_PERCENT, J_SHAPED_LAST_PERCENT = 20, 60


def _seconds(duration: timedelta) -> int:
    return int(duration.total_seconds())


def build(con: duckdb.DuckDBPyConnection, *, config: Config, data_as_of: datetime) -> None:
    """Make the small tables: `parameters` has one row, `interval_numbers` counts from 0, others hold definitions.

    `periods` has day, week and month: the days of a rolling one, and how many intervals of it retention follows.
    `calendar_days` has every day of the reporting calendar on which a touchpoint can lie, up to that of `data_as_of`.
    """
    con.execute(f"""
        create or replace table parameters as select
            timestamp {quoted(data_as_of.replace(tzinfo=None).isoformat(sep=" "))} as data_as_of,
            {quoted(config.reporting_timezone)} as reporting_timezone,
            {config.week_start} as week_starts_on,
            {quoted(config.reporting_currency)} as reporting_currency,
            {_seconds(config.journey_timeout)}::bigint as journey_timeout_seconds,
            {_seconds(config.conversion_window)}::bigint as conversion_window_seconds,
            {_seconds(config.customer_conversion_window)}::bigint as customer_conversion_window_seconds,
            {config.churn_days} as churn_days,
            {_seconds(config.attribution_lookback)}::bigint as attribution_lookback_seconds,
            {_seconds(config.attribution_half_life)}::bigint as attribution_half_life_seconds,
            {POSITION_FIRST_PERCENT} as position_first_percent,
            {POSITION_LAST_PERCENT} as position_last_percent,
            {J_SHAPED_FIRST_PERCENT} as j_shaped_first_percent,
            {J_SHAPED_LAST_PERCENT} as j_shaped_last_percent,
            {BREAKDOWN_LIMIT} as breakdown_limit,
            {SMALL_SAMPLE_COUNT} as small_sample_count,
            {CSAT_SATISFIED_FROM} as csat_satisfied_from,
            {NPS_PROMOTER_FROM} as nps_promoter_from,
            {NPS_DETRACTOR_TO} as nps_detractor_to,
            {PATH_STEP_LIMIT} as path_step_limit,
            {PATH_LIMIT} as path_limit,
            {DAY_INTERVALS} as day_intervals,
            {WEEK_INTERVALS} as week_intervals,
            {MONTH_INTERVALS} as month_intervals""")
    con.execute(f"""
        create or replace table periods as
        from (values ('day', 1, {DAY_INTERVALS}), ('week', 7, {WEEK_INTERVALS}), ('month', 30, {MONTH_INTERVALS}))
            as t(period, rolling_days, interval_count)""")
    longest = max(DAY_INTERVALS, WEEK_INTERVALS, MONTH_INTERVALS)
    con.execute(f"create or replace table interval_numbers as select range as number from range({longest})")
    earliest = quoted(config.earliest_occurred_at.replace(tzinfo=None).isoformat(sep=" "))
    con.execute(f"""
        create or replace table calendar_days as
        select unnest(generate_series(
            timezone(reporting_timezone, timezone('UTC', timestamp {earliest}))::date,
            timezone(reporting_timezone, timezone('UTC', data_as_of))::date,
            interval 1 day
        ))::date as local_day
        from parameters""")
    stages = ", ".join(
        f"({quoted(stage.stage)}, {index}, {stage.is_pre_conversion})" for index, stage in enumerate(config.stages, 1)
    )
    con.execute(f"""
        create or replace table stage_definitions as
        from (values {stages}) as t(stage, stage_index, is_pre_conversion)""")
    definitions = ", ".join(
        f"({quoted(definition.start_event)}, {quoted(definition.return_event)})" for definition in config.retention
    )
    con.execute(f"""
        create or replace table retention_definitions as
        from (values {definitions}) as t(start_event, return_event)""")
    con.execute("create or replace table friction_definitions (signal varchar)")
    for rule in config.friction:
        con.execute("insert into friction_definitions values (?)", [rule.signal])
    con.execute("create or replace table experiment_definitions (experiment varchar, control_variant varchar)")
    for experiment, variant in config.experiment_controls.items():
        con.execute("insert into experiment_definitions values (?, ?)", [experiment, variant])
