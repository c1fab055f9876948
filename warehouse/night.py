"""The steps of a night after landing: silver, gold, publish. Each is runnable alone, without Airflow.

A step is one transaction, recorded in `run_steps` under its run id with a fingerprint of its inputs. A step that
is done already with the same inputs is skipped, so a retried task, a re-run night and a run killed between two
steps all come to the same tables. Readers see publications only: a failed night leaves yesterday's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from schemas.config import Config, load_config
from schemas.errors import BuildError, UsageError
from schemas.settings import PROJECT_DIR, Settings
from transforms import bronze, failing_rule, silver
from warehouse import gates, models, publish
from warehouse.database import connect

logger = logging.getLogger(__name__)

SILVER, GOLD, PUBLISH = "silver", "gold", "publish"
SQL_DIR = PROJECT_DIR / "sql"
_RUN_ID = re.compile(r"(?!current$)[A-Za-z0-9][A-Za-z0-9._-]{0,249}")


@dataclass(frozen=True)
class StepResult:
    """What a step did: `is_skipped` when it was done already; `data_as_of` and counts for the log."""

    run_id: str
    step: str
    data_as_of: datetime
    is_skipped: bool
    details: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The result for a task's return value or `--json`."""
        return {
            "run_id": self.run_id,
            "step": self.step,
            "data_as_of": self.data_as_of.isoformat(),
            "is_skipped": self.is_skipped,
            **self.details,
        }


def definition_hash(config: Config) -> str:
    """16 hex digits over journey.yml and the code that computes silver: changes whenever a silver number could."""
    digest = hashlib.sha256(config.definition_hash.encode())
    for folder in ("transforms", "schemas"):
        for path in sorted((PROJECT_DIR / folder).glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def build_silver(
    settings: Settings,
    *,
    run_id: str,
    data_as_of: datetime | None = None,
    full: bool = False,
    landing_problem_count: int | None = None,
) -> StepResult:
    """Load bronze from landing and rebuild silver as of `data_as_of` (None: the newest inbound touchpoint).

    `full` loads bronze anew and is the only way a given `data_as_of` may lie before the last build's; a derived one
    never does. `landing_problem_count` logs of the source could not be landed: data_quality tells; None, where this
    run landed nothing, leaves what the last one that did has found. Raises UsageError when `data_as_of` would move
    back.
    """
    _check_run_id(run_id)
    config = load_config(settings.config)
    with _open(settings) as con:
        problem_count = _landing_problem_count(con, landing_problem_count)
        _load_bronze(con, settings, config, full=full, run_id=run_id)
        previous = _state(con, SILVER)
        if data_as_of and previous and data_as_of < previous.data_as_of and not full:
            raise UsageError(
                f"data_as_of may not move back from {previous.data_as_of.isoformat()}",
                value=data_as_of.isoformat(),
                remedy="Rebuild the past with `journeys build --full --as-of T`",
            )
        definitions = definition_hash(config)
        as_of_text = data_as_of.isoformat() if data_as_of else ""
        inputs = [definitions, as_of_text, _bronze_state(con), str(problem_count)]

        floor = previous.data_as_of if previous else None  # only --as-of moves it back

        def _build() -> tuple[datetime, dict[str, Any]]:
            as_of = silver.build(con, config=config, data_as_of=data_as_of, not_before=floor)
            con.execute(
                "insert into build_counts by name select 'landing_problem_count' as check_name, "
                "'landing' as table_name, ? as numerator, ? as observed",
                [problem_count, problem_count],
            )
            return as_of, {"row_counts": _row_counts(con, silver.TABLES), "definition_hash": definitions}

        with failing_rule.named(con, config=config, data_as_of=data_as_of, not_before=floor):
            return _step(con, SILVER, run_id, inputs, _build)


def build_gold(settings: Settings, *, run_id: str) -> StepResult:
    """Build every gold model and run the gates. Raises GateFailedError; nothing is published then."""
    _check_run_id(run_id)
    config = load_config(settings.config)
    with _open(settings) as con:
        built = _require(con, SILVER, "journeys build")
        loaded = models.load_models(SQL_DIR)
        # The checks and their limits too: a gate that was mended judges again.
        inputs = [built.fingerprint, config.quality.model_dump_json(), _sql_hash()]

        def _build() -> tuple[datetime, dict[str, Any]]:
            lineage: dict[str, Any] = {
                "run_id": run_id,
                "definition_hash": built.definition_hash,
                "data_as_of": built.data_as_of,
                "sql_dir": SQL_DIR,
            }
            models.build_models(con, loaded, **lineage)
            gates.check(con, loaded, config=config, **lineage)
            counts = _row_counts(con, [model.name for model in loaded])
            return built.data_as_of, {"row_counts": counts, "silver": built.fingerprint}

        result = _step(con, GOLD, run_id, inputs, _build)
        # After the commit: a failed gate keeps its evidence in data_quality, and stops the night here.
        gates.enforce(con, settings, run_id=result.run_id)
        return result


def publish_run(settings: Settings, *, run_id: str, root: Path | None = None) -> StepResult:
    """Publish silver and gold atomically. Raises when the gates of the built gold did not hold."""
    _check_run_id(run_id)
    with _open(settings) as con:
        built = _require(con, GOLD, "journeys build")
        silver_built = _require(con, SILVER, "journeys build")
        gates.require_passed(con, run_id=built.run_id)
        if built.silver_fingerprint != silver_built.fingerprint:
            raise BuildError(
                "silver was rebuilt after gold", remedy="Run `journeys build` (or the gold task), then publish"
            )
        inputs = [built.fingerprint, str(settings.published_dir), str(root or "")]
        current = (settings.published_dir / publish.CURRENT).resolve()
        # A publication that somebody deleted or moved is made again.
        is_current = _published_path(con) == current and (current / "manifest.json").exists()

        def _build() -> tuple[datetime, dict[str, Any]]:
            path = publish.publish(
                con,
                settings,
                models.load_models(SQL_DIR),
                sql_dir=SQL_DIR,
                run_id=run_id,
                definition_hash=silver_built.definition_hash,
                data_as_of=built.data_as_of,
                root=root,
            )
            return built.data_as_of, {"path": str(path)}

        return _step(con, PUBLISH, run_id, inputs, _build, may_skip=is_current)


def new_run_id(now: datetime) -> str:
    """A run id for a night started by hand: `manual-<UTC time>`."""
    return f"manual-{now.astimezone(UTC):%Y%m%dT%H%M%S%fZ}"


def replay_rejected(settings: Settings) -> tuple[int, int]:
    """Judge the quarantine by today's contract; answers (accepted, still rejected) in records.

    The next build takes the accepted ones in. A build under a changed contract judges everything anew by itself:
    this is for seeing at once what a fix repairs.
    """
    config = load_config(settings.config)
    with _open(settings) as con:
        return bronze.judge_again(
            con,
            earliest_occurred_at=config.earliest_occurred_at,
            clock_skew_tolerance=config.clock_skew_tolerance,
        )


def unforwarded_rejects(settings: Settings, *, batch_rows: int = 1000) -> Iterator[list[dict[str, Any]]]:
    """Quarantine rows that no dead-letter topic has yet, in batches; call `mark_forwarded` after each.

    Columns: `_cluster`, `_topic`, `_partition`, `_offset`, `received_at`, `reason`, `field`, `raw`.
    """
    while settings.warehouse_path.exists():
        with _open(settings) as con:
            bronze.create_tables(con)
            cursor = con.execute(
                "select _cluster, _topic, _partition, _offset, received_at, reason, field, raw from quarantine "
                f"anti join forwarded_rejects using ({', '.join(bronze.COORDINATES)}) "
                f"order by {', '.join(bronze.COORDINATES)} limit {batch_rows}"
            )
            names = [column[0] for column in cursor.description or ()]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        if not rows:
            return
        yield rows


def mark_forwarded(settings: Settings, rows: list[dict[str, Any]]) -> None:
    """Remember that these quarantine rows are on the dead-letter topic (at least once: a kill may repeat some)."""
    with _open(settings) as con:
        con.execute("begin")
        con.executemany(
            "insert or ignore into forwarded_rejects values (?, ?, ?, ?)",
            [[row[name] for name in bronze.COORDINATES] for row in rows],
        )
        con.execute("commit")


def _check_run_id(run_id: str) -> None:
    """A run's id names a folder and files."""
    if not _RUN_ID.fullmatch(run_id):
        raise UsageError(
            "not a run id",
            value=run_id,
            remedy="Use letters, digits, dots, dashes and underscores, a letter or digit first; not `current`",
        )


@dataclass(frozen=True)
class _Recorded:
    run_id: str
    fingerprint: str
    data_as_of: datetime
    details: dict[str, Any]

    @property
    def silver_fingerprint(self) -> str | None:
        """Of a gold record: the silver it was built from."""
        return self.details.get("silver")

    @property
    def definition_hash(self) -> str:
        """Of a silver record: what it was built by, which journey.yml may have left behind since."""
        return str(self.details.get("definition_hash", ""))


def _open(settings: Settings) -> Any:
    con = connect(settings)
    con.execute("""
        create table if not exists run_steps (
            run_id varchar, step varchar, fingerprint varchar, data_as_of timestamp, finished_at timestamp,
            seconds double, details varchar, primary key (run_id, step)
        )""")
    # Apart from the quarantine, so that loading bronze anew sends nothing twice.
    con.execute("""
        create table if not exists forwarded_rejects (
            _cluster varchar, _topic varchar, _partition integer, _offset bigint,
            primary key (_cluster, _topic, _partition, _offset)
        )""")
    return con


def _landing_problem_count(con: duckdb.DuckDBPyConnection, found: int | None) -> int | None:
    """Keep what a landing found, before anything can fail; answers the newest count, None where none is known."""
    con.execute("create table if not exists landing_state (problem_count integer)")
    if found is not None:
        con.execute("begin")
        con.execute("delete from landing_state")
        con.execute("insert into landing_state values (?)", [found])
        con.execute("commit")
    known = con.execute("select problem_count from landing_state").fetchone()
    return known[0] if known else None


def _load_bronze(
    con: duckdb.DuckDBPyConnection, settings: Settings, config: Config, *, full: bool, run_id: str
) -> None:
    """Bronze depends on two values of journey.yml and on the contract: where they changed, or on `full`, it is anew."""
    depends_on = json.dumps(
        [config.earliest_occurred_at.isoformat(), config.clock_skew_tolerance.total_seconds(), _contract_hash()]
    )
    con.execute("create table if not exists bronze_definition (depends_on varchar)")
    known = con.execute("select depends_on from bronze_definition").fetchone()
    if full or (known and known[0] != depends_on):
        bronze.reset(con)
    con.execute("begin")
    con.execute("delete from bronze_definition")
    con.execute("insert into bronze_definition values (?)", [depends_on])
    con.execute("commit")
    try:
        bronze.load(
            con,
            landing_dir=settings.landing_dir,
            earliest_occurred_at=config.earliest_occurred_at,
            clock_skew_tolerance=config.clock_skew_tolerance,
        )
    except duckdb.Error as error:
        raise _failed(error, f"bronze of run {run_id}", "Whole batches were kept") from error


def _contract_hash() -> str:
    """Changes whenever the verdict on a record could: a night judges like a full build, whatever code ran before."""
    digest = hashlib.sha256()
    for name in ("schemas/events.py", "schemas/identifiers.py", "schemas/contracts.py", "transforms/event_sql.py"):
        digest.update((PROJECT_DIR / name).read_bytes())
    return digest.hexdigest()[:16]


def _sql_hash() -> str:
    """Changes whenever a gold number, a check or a description could."""
    digest = hashlib.sha256()
    for path in sorted(path for path in SQL_DIR.rglob("*") if path.suffix in (".sql", ".py", ".yml")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _bronze_state(con: duckdb.DuckDBPyConnection) -> str:
    # The counts tell a quarantine that was judged again, which moves no offset.
    return json.dumps(
        [
            con.execute("from bronze_progress order by all").fetchall(),
            con.execute(
                "select (select count(*) from bronze_touchpoints), (select count(*) from quarantine)"
            ).fetchall(),
        ]
    )


def _step(
    con: duckdb.DuckDBPyConnection,
    step: str,
    run_id: str,
    inputs: list[str],
    build: Callable[[], tuple[datetime, dict[str, Any]]],
    *,
    may_skip: bool = True,
) -> StepResult:
    """Run `build` in one transaction with its record, or skip it when the newest record has the same inputs."""
    fingerprint = hashlib.sha256("\x1f".join([run_id, *inputs]).encode()).hexdigest()[:32]
    newest = _state(con, step)
    if may_skip and newest and newest.fingerprint == fingerprint:
        logger.info("%s: run %s has it already, skipped", step, run_id)
        return StepResult(run_id, step, newest.data_as_of, True, newest.details)
    started = datetime.now(UTC)
    con.execute("begin")
    try:
        as_of, details = build()
        finished = datetime.now(UTC)
        seconds = (finished - started).total_seconds()
        con.execute(
            "insert or replace into run_steps values (?, ?, ?, ?, ?, ?, ?)",
            [run_id, step, fingerprint, _naive(as_of), _naive(finished), seconds, json.dumps(details)],
        )
        con.execute("commit")
    except BaseException as error:
        with contextlib.suppress(duckdb.Error):  # a connection that broke has rolled back by itself
            con.execute("rollback")
        if isinstance(error, duckdb.Error):
            raise _failed(error, f"{step} of run {run_id}", "Nothing of it was kept") from error
        raise
    logger.info("%s: run %s, data as of %s, %.2f s", step, run_id, as_of.isoformat(), seconds)
    return StepResult(run_id, step, as_of, False, details)


def _failed(error: duckdb.Error, where: str, kept: str) -> BuildError:
    return BuildError(
        f"the step failed: {' '.join(str(error).split())[:400]}",
        where=where,
        remedy=f"{kept}; mend the cause (disk, memory) and run it again",
    )


def _naive(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(tzinfo=None)


def _state(con: duckdb.DuckDBPyConnection, step: str) -> _Recorded | None:
    row = con.execute(
        "select run_id, fingerprint, data_as_of, details from run_steps where step = ? "
        "order by finished_at desc limit 1",
        [step],
    ).fetchone()
    return _Recorded(row[0], row[1], row[2].replace(tzinfo=UTC), json.loads(row[3])) if row else None


def _published_path(con: duckdb.DuckDBPyConnection) -> Path | None:
    state = _state(con, PUBLISH)
    return Path(state.details["path"]).resolve() if state else None


def _require(con: duckdb.DuckDBPyConnection, step: str, command: str) -> _Recorded:
    state = _state(con, step)
    if state is None:
        raise BuildError(f"no {step} was built yet", remedy=f"Run `{command}` first")
    return state


def _row_counts(con: duckdb.DuckDBPyConnection, tables: Any) -> dict[str, int]:
    counts = {}
    for table in tables:
        row = con.execute(f'select count(*) from "{table}"').fetchone()
        counts[table] = int(row[0]) if row else 0
    return counts
