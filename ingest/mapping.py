"""Mapping files: how rows of any CSV, Parquet or NDJSON file become touchpoints.

Every value is an SQL expression over the row, checked before anything runs (schemas.expressions); `from` may first
shape the rows with one SELECT over the loaded tables. docs/mappings.md explains the format.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import sqlglot
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from sqlglot import exp

from schemas.config import Name, is_time_zone
from schemas.errors import ConfigurationError
from schemas.expressions import AGGREGATE_FUNCTIONS, MAPPING_FUNCTIONS, check_expression, refused_function
from schemas.identifiers import IDENTIFIER_TYPES
from schemas.yaml_document import Lines, read_yaml

INPUT = "input"
PAGE = "docs/mappings.md"
TEXT_FIELDS = (
    "channel", "event_type", "event_name", "occurred_at", "received_at", "event_id", "source", "medium", "campaign",
    "experiment", "variant",
)  # fmt: skip


def _expression(value: Any) -> Any:
    # A bare number or boolean in YAML is a fine SQL literal.
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


Expression = Annotated[str, BeforeValidator(_expression)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Input(_Part):
    """What kind of file is read."""

    format: Literal["csv", "parquet", "ndjson"]
    timezone: Annotated[str, AfterValidator(is_time_zone)] = "UTC"
    delimiter: Annotated[str, Field(min_length=1, max_length=4)] | None = None
    has_header: bool = True


class Entry(_Part):
    """One kind of touchpoint made from the rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    from_: str | None = Field(None, alias="from")
    where: Expression | None = None
    channel: Expression
    event_type: Expression
    event_name: Expression | None = None
    occurred_at: Expression
    received_at: Expression | None = None
    event_id: Expression | None = None
    identifiers: dict[str, Expression | None] = Field(default_factory=dict)
    source: Expression | None = None
    medium: Expression | None = None
    campaign: Expression | None = None
    experiment: Expression | None = None
    variant: Expression | None = None
    properties: dict[str, Expression | None] = Field(default_factory=dict)

    def expressions(self) -> dict[tuple[str, ...], str]:
        """Every expression given, by its place in the entry."""
        named: dict[tuple[str, ...], str | None]
        named = {(name,): getattr(self, name) for name in ("where", *TEXT_FIELDS)}
        named |= {("identifiers", name): value for name, value in self.identifiers.items()}
        named |= {("properties", name): value for name, value in self.properties.items()}
        return {place: value for place, value in named.items() if value is not None}


class MappingFile(_Part):
    """The whole file. `name` (default: the file's stem) is part of default event ids."""

    name: Name | None = None
    input: Input
    tables: dict[Name, str] = Field(default_factory=dict)
    touchpoints: Annotated[tuple[Entry, ...], Field(min_length=1)]


class Mapping:
    """A mapping with the places of its keys, for messages."""

    def __init__(self, path: Path, content: MappingFile, lines: Lines) -> None:
        self.path, self.content, self.lines = path, content, lines
        self.name = content.name or path.stem

    def place(self, index: int, *keys: str) -> str:
        """`file:line (touchpoints[i].key)` of a key of an entry."""
        return f"{self.lines.at('touchpoints', index, *keys)} ({'.'.join((f'touchpoints[{index}]', *keys))})"

    def table_paths(self) -> dict[str, Path]:
        """The further tables the mapping names, relative to its own folder."""
        return {name: self.path.parent / file for name, file in self.content.tables.items()}

    def check_entry(self, index: int, columns: Collection[str]) -> dict[tuple[str, ...], str]:
        """The entry's expressions in normal form, checked against the columns of its rows."""
        return {
            place: check_expression(
                sql, columns=columns, where=self.place(index, *place), functions=MAPPING_FUNCTIONS, page=PAGE
            )
            for place, sql in self.content.touchpoints[index].expressions().items()
        }

    def rows_sql(self, index: int, tables: Collection[str]) -> str:
        """SQL of the entry's rows, checked: its `from`, or the input."""
        sql = self.content.touchpoints[index].from_
        if sql is None:
            return f"select * from {INPUT}"
        return check_select(sql, tables=tables, where=self.place(index, "from"))


def load_mapping(path: Path) -> Mapping:
    """Read a mapping file. Raises ConfigurationError naming file:line, key, value and remedy."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"the mapping cannot be read: {error}", where=str(path), remedy="Give --mapping a YAML file"
        ) from None
    return parse_mapping(text, path)


def parse_mapping(text: str, path: Path) -> Mapping:
    """A mapping from YAML text."""
    document, lines = read_yaml(text, source=str(path))
    try:
        content = MappingFile.model_validate(document)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        # a misspelt key says more than the required one that it leaves missing
        first = next((item for item in errors if item["type"] == "extra_forbidden"), errors[0])
        raise ConfigurationError(
            f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}",
            where=lines.at(*first["loc"]),
            value=None if isinstance(first["input"], dict) else first["input"],
            remedy=f"See {PAGE}",
        ) from None
    for index, entry in enumerate(content.touchpoints):
        for kind in entry.identifiers:
            if kind not in IDENTIFIER_TYPES:
                raise ConfigurationError(
                    "unknown identifier type",
                    where=lines.at("touchpoints", index, "identifiers", kind),
                    value=kind,
                    remedy=f"Known types: {', '.join(IDENTIFIER_TYPES)}",
                )
    return Mapping(path, content, lines)


_REFUSED: tuple[type[exp.Expression], ...] = (
    exp.Window,
    exp.Parameter,
    exp.Placeholder,
    exp.Command,
    exp.DDL,
    exp.DML,
    exp.Lambda,
    exp.Into,
    exp.TableSample,
)


def check_select(sql: str, *, tables: Collection[str], where: str) -> str:
    """One SELECT over the loaded tables in normal form; raises ConfigurationError for anything else."""
    try:
        statements = [statement for statement in sqlglot.parse(sql, dialect="duckdb") if statement]
    except sqlglot.errors.SqlglotError as error:
        raise ConfigurationError(
            f"not valid SQL: {str(error).splitlines()[0]}", where=where, value=sql, remedy="Correct the SELECT"
        ) from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise ConfigurationError("exactly one SELECT is expected", where=where, value=sql, remedy="Remove the rest")
    query = statements[0]
    known = {name.lower() for name in tables} | {cte.alias_or_name.lower() for cte in query.find_all(exp.CTE)}
    allowed = MAPPING_FUNCTIONS | AGGREGATE_FUNCTIONS
    for node in query.walk():
        if isinstance(node, _REFUSED):
            raise ConfigurationError(
                f"{type(node).__name__.lower()} is not allowed here", where=where, value=sql, remedy="Use plain SQL"
            )
        if isinstance(node, exp.Table):
            if not isinstance(node.this, exp.Identifier) or node.db or node.name.lower() not in known:
                raise ConfigurationError(
                    f"unknown table {node.sql('duckdb')!r}",
                    where=where,
                    value=sql,
                    remedy=f"Loaded tables: {', '.join(sorted(known))}; add others under `tables`",
                )
        elif (name := refused_function(node, allowed)) is not None:
            raise ConfigurationError(
                f"function {name!r} is not allowed",
                where=where,
                value=sql,
                remedy=f"Only deterministic functions on the allow-list may be used; {PAGE} lists them",
            )
    return str(query.sql(dialect="duckdb"))
