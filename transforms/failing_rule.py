"""Which rule of journey.yml breaks on the data, after a build failed: `cast(campaign as integer) > 1` and one name.

A step's SQL holds many rules, and DuckDB's message names none of them. So the build's beginning is made again with
rules that let nothing fail, and then each rule is read alone, as the build reads it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime

import duckdb

from schemas import uuid5
from schemas.config import Config
from schemas.errors import BuildError, ConfigurationError
from schemas.rules import Rule
from transforms import identity, kept_events, orders, touchpoints
from transforms.stages import friction_signals_sql, lifecycle_stage_sql, segment_sql, stage_sql

_READINGS: dict[str, tuple[Callable[[Config], str], ...]] = {
    "exclude": (kept_events.excluded_sql,),
    "stage_rules": (stage_sql, lifecycle_stage_sql),
    "friction": (friction_signals_sql,),
    "conversion": (lambda config: config.conversion,),
    "segments": (segment_sql,),
}
"""SQL of each section as the build reads it; segments last, which it reads at first touches only."""


@contextlib.contextmanager
def named(
    con: duckdb.DuckDBPyConnection, *, config: Config, data_as_of: datetime | None, not_before: datetime | None
) -> Iterator[None]:
    """Around a build of silver: turns a BuildError that a rule caused into a ConfigurationError with its line.

    The transaction of the build must have ended. The search costs one more build, keeps nothing, and is made for
    errors of values only: a full disk is no rule's fault.
    """
    try:
        yield
    except BuildError as error:
        if isinstance(error.__cause__, duckdb.DataError | duckdb.InvalidInputException):
            found = None
            with contextlib.suppress(duckdb.Error):  # what fails here too is no rule
                con.execute("begin")
                found = _find(con, config, data_as_of, not_before)
            with contextlib.suppress(duckdb.Error):
                con.execute("rollback")
            if found is not None:
                raise found from error
        raise


def _find(
    con: duckdb.DuckDBPyConnection, config: Config, data_as_of: datetime | None, not_before: datetime | None
) -> ConfigurationError | None:
    tolerant = _tolerant(config)
    uuid5.create_macro(con)
    kept_events.build(con, config=tolerant, data_as_of=data_as_of, not_before=not_before)
    if error := _try_each(con, config, ["exclude"], "deduplicated_events"):
        return error
    identity.build(con, config=tolerant)
    touchpoints.prepare(con)
    orders.find(con, config=tolerant)
    touchpoints.build(con, config=tolerant)
    return _try_each(con, config, [section for section in _READINGS if section != "exclude"], "touchpoints")


def _try_each(
    con: duckdb.DuckDBPyConnection, config: Config, sections: list[str], table: str
) -> ConfigurationError | None:
    for section in sections:
        for rule in (rule for rule in config.rules if rule.section == section):
            for reading in _READINGS[section]:
                try:
                    # Of the text, because a mere count would let the optimizer leave the rule out.
                    con.execute(f"select max(({reading(_tolerant(config, rule))})::varchar) from {table}").fetchall()
                except duckdb.Error as error:
                    return ConfigurationError(
                        f"fails on the data: {' '.join(str(error).split('LINE')[0].split())}",
                        where=rule.where,
                        value=rule.sql,
                        remedy="Write it so that no value can break it, with try_cast for example",
                    )
    return None


def _tolerant(config: Config, strict: Rule | None = None) -> Config:
    """The configuration with rules that are NULL where they would fail; `strict` is left as it is."""
    changed = {(rule.section, rule.index): rule.sql if rule == strict else f"try({rule.sql})" for rule in config.rules}
    sections = {
        section: tuple(
            item.model_copy(update={"when": changed[section, index]})
            for index, item in enumerate(getattr(config, section))
        )
        for section in _READINGS
        if section != "conversion"
    }
    return config.model_copy(update={**sections, "conversion": changed["conversion", 0]})
