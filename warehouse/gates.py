"""Quality gates: what must hold before a night publishes.

Checks come from the tables' .yml (rows that break them are counted) and from `build_counts` with the limits of
journey.yml. DuckDB computes every observation; great-expectations is the gate over that small frame and keeps the
record, because it cannot read DuckDB tables itself.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from schemas.config import Config
from schemas.errors import GateFailedError
from schemas.settings import Settings
from warehouse.database import connect
from warehouse.models import Model, failed, load_silver

logger = logging.getLogger(__name__)

COLUMNS = (
    "run_id", "check_name", "table_name", "severity", "observed", "expected", "passed", "checked_at", "limit_value"
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One check's observation; it passes when nothing was observed or not more than the limit."""

    check_name: str
    table_name: str
    severity: str
    observed: float | None
    limit: float
    expected: str

    @property
    def passed(self) -> bool:
        """Whether the check held."""
        return self.observed is None or self.observed <= self.limit


def check(
    con: duckdb.DuckDBPyConnection,
    models: Sequence[Model],
    *,
    config: Config,
    run_id: str,
    definition_hash: str,
    data_as_of: datetime,
    sql_dir: Path,
) -> list[Result]:
    """Run every check and write them to `data_quality` (those of the same run id are replaced)."""
    results = [_touchpoints_check(con, data_as_of), *_table_checks(con, [*load_silver(sql_dir), *models])]
    results += _ratio_checks(con, config)
    con.execute("""
        create table if not exists data_quality (
            run_id varchar, check_name varchar, table_name varchar, severity varchar, observed double,
            expected varchar, passed boolean, checked_at timestamp, limit_value double,
            _run_id varchar, _definition_hash varchar, _data_as_of timestamp
        )""")
    con.execute("delete from data_quality where run_id = ?", [run_id])
    now = datetime.now(UTC).replace(tzinfo=None)
    as_of = data_as_of.astimezone(UTC).replace(tzinfo=None)
    con.executemany(
        "insert into data_quality values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                *(run_id, r.check_name, r.table_name, r.severity, r.observed, r.expected, r.passed, now, r.limit),
                *(run_id, definition_hash, as_of),
            )
            for r in results
        ],
    )
    return results


def _touchpoints_check(con: duckdb.DuckDBPyConnection, data_as_of: datetime) -> Result:
    """A build over nothing breaks no other check: no row is wrong, and every ratio is NULL."""
    is_empty = con.execute("select 1 from touchpoints limit 1").fetchone() is None
    expected = f"a touchpoint by {data_as_of.astimezone(UTC).isoformat()} (1: there is none)"
    return Result("has_touchpoints", "touchpoints", "warn", float(is_empty), 0.0, expected)


def _table_checks(con: duckdb.DuckDBPyConnection, models: Sequence[Model]) -> list[Result]:
    results = []
    for model in models:
        for item in model.description.checks:
            try:
                row = con.execute(f"select count(*) from ({item.bad_rows_sql(model.name)})").fetchone()
            except duckdb.Error as error:
                where = model.path.with_suffix(".yml")
                raise failed(error, f"check {item.name} cannot run", where=where) from error
            observed = float(row[0]) if row else 0.0
            results.append(Result(item.name, model.name, item.severity, observed, 0.0, item.expectation))
    return results


def _ratio_checks(con: duckdb.DuckDBPyConnection, config: Config) -> list[Result]:
    results = []
    limits = config.quality.model_dump()
    for name, table, observed in con.execute("select check_name, table_name, observed from build_counts").fetchall():
        for severity in ("warn", "fail"):
            limit = (limits.get(name) or {}).get(severity)
            if limit is not None:
                results.append(Result(name, table, severity, observed, limit, f"at most {limit:g}"))
    return results


def enforce(con: duckdb.DuckDBPyConnection, settings: Settings, *, run_id: str) -> None:
    """Let great-expectations judge the run's observations; raises GateFailedError when a `fail` check did not hold.

    Its validation result is kept as `<home>/quality/<run_id>.json`. Warnings are logged.
    """
    rows = _rows(con, run_id)
    verdicts = _judge(rows, settings.home.absolute() / "quality" / f"{run_id}.json")
    for row, passed in zip(rows, verdicts, strict=True):
        if not passed and row["severity"] == "warn":
            logger.warning(
                "check %s on %s: observed %s, expected %s",
                row["check_name"],
                row["table_name"],
                row["observed"],
                row["expected"],
            )
    _raise_for([row for row, passed in zip(rows, verdicts, strict=True) if not passed])


def require_passed(con: duckdb.DuckDBPyConnection, *, run_id: str) -> None:
    """Raise GateFailedError when a `fail` check of the run is recorded as not passed."""
    _raise_for([row for row in _rows(con, run_id) if not row["passed"]])


def _raise_for(failed: Sequence[dict[str, Any]]) -> None:
    broken = [row for row in failed if row["severity"] == "fail"]
    if not broken:
        return
    first = broken[0]
    more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
    raise GateFailedError(
        f"check {first['check_name']} did not hold{more}: expected {first['expected']}",
        where=f"table {first['table_name']}",
        value=first["observed"],
        remedy="Nothing was published, readers keep the last publication; see `journeys check` and the quarantine",
    )


def _rows(con: duckdb.DuckDBPyConnection, run_id: str) -> list[dict[str, Any]]:
    cursor = con.execute(
        f"select {', '.join(COLUMNS)} from data_quality where run_id = ? order by table_name, check_name, severity",
        [run_id],
    )
    return [dict(zip(COLUMNS, row, strict=True)) for row in cursor.fetchall()]


def _judge(rows: Sequence[dict[str, Any]], record: Path) -> list[bool]:
    """One expectation per check over a frame of one row: its column holds the observation."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.ERROR)  # before the import, which logs hundreds of lines
    import great_expectations as gx
    import pandas as pd

    # The import sets this one to INFO again: it tells of temporary folders, whoever asked for quiet.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.ERROR)
    names = [f"{row['table_name']}.{row['check_name']}.{row['severity']}" for row in rows]
    frame = pd.DataFrame({name: [row["observed"]] for name, row in zip(names, rows, strict=True)}, dtype="float64")
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    batch = context.data_sources.add_pandas("observations").add_dataframe_asset("run").add_batch_definition("whole")
    # All at once: a suite that grows serialises itself anew for each expectation.
    expectations = [
        gx.expectations.ExpectColumnValuesToBeBetween(
            column=name, max_value=row["limit_value"], meta={"expected": row["expected"]}
        )
        for name, row in zip(names, rows, strict=True)
    ]
    suite = context.suites.add(gx.ExpectationSuite(name="gates", expectations=expectations))
    definition = context.validation_definitions.add(gx.ValidationDefinition(data=batch, suite=suite, name="gates"))
    outcome = definition.run(batch_parameters={"dataframe": frame})
    record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    record.write_text(json.dumps(outcome.to_json_dict(), indent=1), encoding="utf-8")
    verdict = {result.expectation_config.kwargs["column"]: bool(result.success) for result in outcome.results}
    return [verdict[name] for name in names]


def latest_checks(settings: Settings) -> list[dict[str, Any]]:
    """The checks of the newest run, failed ones first; empty before the first build."""
    if not settings.warehouse_path.exists():
        return []
    with connect(settings, read_only=True) as con:
        if not con.execute("select 1 from duckdb_tables() where table_name = 'data_quality'").fetchone():
            return []
        row = con.execute("select run_id from data_quality order by checked_at desc limit 1").fetchone()
        return sorted(_rows(con, row[0]), key=lambda check: bool(check["passed"])) if row else []
