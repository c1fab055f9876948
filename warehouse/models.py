"""SQL models: one bare SELECT per file with a sibling .yml, built in the order their SQL implies.

A model is `sql/gold/<table>.sql` (or `sql/intermediate/`, where it only serves others); its `.yml` says description,
grain, columns and checks. `sql/silver/<table>.yml` describes a table that the transforms make, in the same words.
Dependencies are read from the SQL with sqlglot. What SQL cannot say (a linear solve) is a Python model,
`sql/intermediate/<table>.py`: see `warehouse.python_models`.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Literal

import duckdb
import sqlglot
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlglot import exp
from sqlglot.optimizer.scope import traverse_scope

from schemas.errors import BuildError, ConfigurationError, ModelError
from warehouse import python_models

logger = logging.getLogger(__name__)

FOLDERS = ("intermediate", "gold")
"""Folders of models; those of `intermediate` serve other models and are not published."""

LINEAGE_COLUMNS = ("_run_id", "_definition_hash", "_data_as_of")
HELPER_TABLES = (
    "parameters", "interval_numbers", "periods", "calendar_days", "stage_definitions", "retention_definitions",
    "friction_definitions", "experiment_definitions", "touchpoint_frictions", "build_counts",
)  # fmt: skip
"""Small tables every model may read besides silver."""
MADE_BY_CODE = ("data_quality",)
"""Gold tables without SQL: described by their .yml, filled by `warehouse.gates`."""


PYTHON_ROWS = "rows_of_a_python_model"
"""Name under which a Python model's answer is registered while its table is written."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(_Part):
    """A column as users are promised it."""

    name: str
    type: str
    unit: str = ""
    meaning: str


class Between(_Part):
    """Limits of a column, inclusive."""

    column: str
    min: float | None = None
    max: float | None = None


class Accepted(_Part):
    """The values a column may have."""

    column: str
    values: tuple[str | int | bool, ...]


class Check(_Part):
    """One check: exactly one of the kinds; it holds when no row breaks it."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    severity: Literal["fail", "warn"] = "fail"
    unique: tuple[str, ...] | None = None
    not_null: tuple[str, ...] | None = None
    between: Between | None = None
    accepted: Accepted | None = None
    holds: str | None = None
    query: str | None = None

    def bad_rows_sql(self, table: str) -> str:
        """SQL that selects the rows which break the check."""
        if self.unique is not None:
            columns = ", ".join(self.unique)
            return f"select {columns} from {table} group by {columns} having count(*) > 1"
        if self.not_null is not None:
            return f"select 1 from {table} where {' or '.join(f'{column} is null' for column in self.not_null)}"
        if self.between is not None:
            low, high = self.between.min, self.between.max
            limits = [f"{self.between.column} < {low}" if low is not None else ""]
            limits.append(f"{self.between.column} > {high}" if high is not None else "")
            return f"select 1 from {table} where {' or '.join(filter(None, limits))}"
        if self.accepted is not None:
            values = ", ".join(exp.convert(value).sql("duckdb") for value in self.accepted.values)
            return f"select 1 from {table} where {self.accepted.column} not in ({values})"
        if self.holds is not None:
            return f"select 1 from {table} where not coalesce(({self.holds}), false)"
        return self.query or ""

    @property
    def expectation(self) -> str:
        """What must hold, in words for `data_quality.expected`."""
        if self.unique is not None:
            return f"unique: {', '.join(self.unique)}"
        if self.not_null is not None:
            return f"not null: {', '.join(self.not_null)}"
        if self.between is not None:
            return f"{self.between.column} between {self.between.min} and {self.between.max}"
        if self.accepted is not None:
            return f"{self.accepted.column} in {', '.join(map(str, self.accepted.values))}"
        return " ".join((self.holds or self.query or "").split())[:300]


class TableDescription(_Part):
    """The .yml beside a model."""

    description: str
    grain: tuple[str, ...]
    owner: str = "analytics"
    columns: tuple[Column, ...]
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True)
class Model:
    """A table and what makes it: SQL, or a Python model's text; empty for silver, which the transforms make."""

    name: str
    code: str
    path: Path
    description: TableDescription
    depends_on: frozenset[str]

    @property
    def is_published(self) -> bool:
        """Intermediate models stay in the warehouse."""
        return self.path.parent.name != "intermediate"

    @property
    def is_python(self) -> bool:
        """Whether Python makes it."""
        return self.path.suffix == ".py"


def load_description(path: Path) -> TableDescription:
    """Read a .yml. Raises ConfigurationError naming file, key and value."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        described = TableDescription.model_validate(document)
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(
            f"cannot be read: {error}", where=str(path), remedy="Every table needs a .yml; see sql/README.md"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigurationError(f"{place}: {first['msg']}", where=str(path), remedy="See sql/README.md") from None
    for check in described.checks:
        kinds = (check.unique, check.not_null, check.between, check.accepted, check.holds, check.query)
        if sum(kind is not None for kind in kinds) != 1:
            raise ConfigurationError(
                "a check needs exactly one of unique, not_null, between, accepted, holds, query",
                where=f"{path}: {check.name}",
                remedy="Split it",
            )
    return described


def load_silver(sql_dir: Path) -> list[Model]:
    """The descriptions of the silver tables, by name."""
    return [
        Model(path.stem, "", path, load_description(path), frozenset())
        for path in sorted((sql_dir / "silver").glob("*.yml"))
    ]


def load_models(sql_dir: Path) -> list[Model]:
    """Every model in build order.

    Raises ConfigurationError for a model without .yml (and the reverse), invalid SQL, a table nobody makes, a cycle,
    or columns that differ between SQL and .yml.
    """
    silver = {model.name for model in load_silver(sql_dir)}
    models = {path.stem: _load_sql(path) for folder in FOLDERS for path in sorted((sql_dir / folder).glob("*.sql"))}
    models |= {path.stem: _load_python(path) for path in sorted((sql_dir / "intermediate").glob("*.py"))}
    for path in sorted(path for folder in FOLDERS for path in (sql_dir / folder).glob("*.yml")):
        if path.stem not in models and path.stem not in MADE_BY_CODE:
            raise ConfigurationError("describes no model", where=str(path), remedy=f"Write {path.stem}.sql beside it")
    for model in models.values():
        for table in sorted(model.depends_on - silver - set(models) - set(HELPER_TABLES)):
            raise ConfigurationError(
                f"reads a table nobody makes: {table}",
                where=str(model.path),
                remedy="Known are silver, other models, and " + ", ".join(HELPER_TABLES),
            )
    sorter = TopologicalSorter({name: sorted(model.depends_on & set(models)) for name, model in models.items()})
    try:
        return [models[name] for name in sorter.static_order()]
    except CycleError as error:
        cycle = " -> ".join(error.args[1])
        raise ConfigurationError(f"models depend on each other: {cycle}", remedy="Break the cycle") from None


def _load_sql(path: Path) -> Model:
    sql = path.read_text(encoding="utf-8")
    try:
        statements = [statement for statement in sqlglot.parse(sql, dialect="duckdb") if statement]
    except sqlglot.errors.SqlglotError as error:
        raise ConfigurationError(
            f"not valid SQL: {str(error).splitlines()[0]}", where=str(path), remedy="Correct the model"
        ) from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise ConfigurationError(
            "a model is one bare SELECT", where=str(path), remedy="One file per table; no CREATE, no semicolons"
        )
    description = load_description(path.with_suffix(".yml"))
    selected = [name.lower() for name in statements[0].named_selects]
    described = [column.name for column in description.columns]
    if selected != described:
        odd = sorted(set(selected) ^ set(described)) or ["their order"]
        raise ConfigurationError(
            f"columns differ from {path.stem}.yml: {', '.join(odd)}", where=str(path), remedy="Make both lists equal"
        )
    return Model(path.stem, sql, path, description, _tables(statements[0]))


def _load_python(path: Path) -> Model:
    description = load_description(path.with_suffix(".yml"))
    return Model(path.stem, path.read_text(encoding="utf-8"), path, description, python_models.reads(path))


def _tables(query: exp.Query) -> frozenset[str]:
    # By scope: a CTE may have the name of the table it reads.
    sources = (source for scope in traverse_scope(query) for source in scope.sources.values())
    return frozenset(source.name for source in sources if isinstance(source, exp.Table))


def create_prelude(con: duckdb.DuckDBPyConnection, sql_dir: Path) -> None:
    """Make the functions that models share."""
    con.execute((sql_dir / "prelude" / "duckdb.sql").read_text(encoding="utf-8"))


def build_models(
    con: duckdb.DuckDBPyConnection,
    models: Sequence[Model],
    *,
    sql_dir: Path,
    run_id: str,
    definition_hash: str,
    data_as_of: datetime,
) -> None:
    """Rebuild every model in the caller's transaction; each row carries run id, definition hash and data_as_of.

    A model's definition hash covers journey.yml and silver's code (`definition_hash`), its SQL and the SQL of
    everything it reads. Raises BuildError naming the model.
    """
    create_prelude(con, sql_dir)
    hashes: dict[str, str] = {}
    as_of = data_as_of.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")
    for model in models:
        upstream = [hashes[name] for name in sorted(model.depends_on) if name in hashes]
        content = "\x1f".join([definition_hash, model.code, *upstream])
        hashes[model.name] = hashlib.sha256(content.encode()).hexdigest()[:16]
        started = time.monotonic()
        try:
            source = _python_rows(con, model) if model.is_python else f"({model.code.rstrip().rstrip(';')})"
            con.execute(f"""
                create or replace table {model.name} as
                select
                    model.*, {exp.convert(run_id).sql("duckdb")} as _run_id,
                    '{hashes[model.name]}' as _definition_hash, timestamp '{as_of}' as _data_as_of
                from {source} as model""")
        except duckdb.Error as error:
            raise failed(error, "the model failed", where=model.path) from error
        if model.is_python:
            con.unregister(PYTHON_ROWS)
        rows = count_rows(con, model.name)
        logger.info("gold: %s, %d rows, %.2f s", model.name, rows, time.monotonic() - started)


def failed(error: duckdb.Error, what: str, *, where: Path) -> BuildError:
    """The error of a statement that a model or check made: its own fault, or the machine's, which may pass."""
    message = f"{what}: {str(error).splitlines()[0]}"
    if isinstance(error, duckdb.OperationalError):  # disk, memory, files
        return BuildError(message, where=str(where), remedy="Free the disk or memory it names, then run it again")
    return ModelError(message, where=str(where), remedy="Correct it")


def _python_rows(con: duckdb.DuckDBPyConnection, model: Model) -> str:
    """Run a Python model; answers the SQL of its rows, with the types its .yml promises."""
    con.register(PYTHON_ROWS, python_models.run(con, model.path, sorted(model.depends_on)))
    columns = ", ".join(f"cast({item.name} as {item.type}) as {item.name}" for item in model.description.columns)
    return f"(select {columns} from {PYTHON_ROWS})"


def count_rows(con: duckdb.DuckDBPyConnection, table: str) -> int:
    """How many rows a table holds."""
    [(count,)] = con.execute(f'select count(*) from "{table}"').fetchall()  # fetchone would leave a result open
    return int(count)
