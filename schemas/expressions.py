"""SQL expressions that users write (rules in journey.yml, mappings): checked before they run.

An expression is one scalar SQL expression over known columns. It is parsed with sqlglot and refused if it holds
anything that is not on the allow-list: subqueries, aggregates, windows, files, settings, or a function whose
answer changes between two runs (`now()`, `random()`).
"""

from __future__ import annotations

import re
from collections.abc import Collection

import sqlglot
from sqlglot import ErrorLevel, exp

from schemas.errors import ConfigurationError

SCALAR_FUNCTIONS = frozenset(
    """abs ceil ceiling floor round sign mod greatest least coalesce nullif ifnull if
    lower upper trim ltrim rtrim length len substr substring left right replace concat concat_ws contains
    starts_with ends_with prefix suffix split_part string_split str_split split lpad rpad reverse strpos instr position
    regexp_matches regexp_like regexp_full_match regexp_extract regexp_replace
    date_trunc date_part extract year month day hour minute second dayofweek isodow week quarter epoch epoch_ms
    make_date make_timestamp to_timestamp strptime strftime try_strptime date_diff datediff date_add date_sub
    cast try_cast md5 sha256 json_extract json_extract_string json_extract_scalar
    list_value array list_distinct list_contains array_contains list_sort
    to_json case and or not in like ilike between is""".split()
)
"""Deterministic scalar functions; the same input gives the same answer in every run."""

MAX_PADDING = 1_000
"""The longest text that `lpad` and `rpad` may ask for: their length alone says how much memory a row takes."""

MAPPING_FUNCTIONS = SCALAR_FUNCTIONS | {"uuid5"}
"""What a mapping may use: `uuid5(namespace, name)` too, which `replay` defines."""

AGGREGATE_FUNCTIONS = frozenset(
    "sum min max count avg any_value first arg_min arg_max bool_and bool_or list array_agg string_agg "
    "count_if median listagg".split()
)
"""Additionally allowed where a mapping groups rows (`from:`)."""

_REFUSED_NODES: tuple[type[exp.Expression], ...] = (
    exp.Subquery,
    exp.Query,
    exp.Window,
    exp.Parameter,
    exp.Placeholder,
    exp.Command,
    exp.DDL,
    exp.DML,
    exp.Star,
    exp.Lambda,
    exp.Distinct,
    exp.Filter,
    exp.Order,
    exp.Exists,
    exp.PositionalColumn,  # names no column, so it would pass the check of columns
)
_OPERATORS = (exp.Connector, exp.Binary, exp.Unary, exp.Predicate, exp.Cast, exp.Case, exp.Interval)


def function_name(node: exp.Func) -> str:
    """The name a user wrote, lower case."""
    return str(node.name if isinstance(node, exp.Anonymous) else node.sql_name()).lower()


def function_names(node: exp.Func) -> set[str]:
    """Every name the function goes by (sqlglot parses synonyms into one node)."""
    if isinstance(node, exp.Anonymous):
        return {node.name.lower()}
    return {name.lower() for name in node.sql_names()} | {node.key.lower()}


def refused_function(node: exp.Expression, functions: Collection[str]) -> str | None:
    """The name of a function call that `functions` does not hold; None for anything else.

    Judged is the function DuckDB will be asked for, not sqlglot's node for it, which stands for several. Constructs
    with a syntax of their own (`case`, `extract`, `[1, 2]`) go by sqlglot's names.
    """
    if not isinstance(node, exp.Func) or is_operator(node):
        return None
    call = re.match(r"(\w+)\(", node.sql(dialect="duckdb", comments=False, unsupported_level=ErrorLevel.IGNORE))
    names = {call[1].lower()} if call else function_names(node)
    return None if names & set(functions) else min(names)


def is_operator(node: exp.Expression) -> bool:
    """Operators are functions to sqlglot, yet not called by name."""
    return isinstance(node, _OPERATORS)


def _fail(what: str, sql: str, where: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(what, where=where, value=sql, remedy=remedy)


def check_expression(
    sql: object,
    *,
    columns: Collection[str],
    where: str,
    functions: Collection[str] = SCALAR_FUNCTIONS,
    page: str = "docs/configuration.md",
) -> str:
    """The expression in DuckDB's dialect, normalised, after every check held.

    `columns`: names it may use (case-insensitive). `where`: file:line and rule, for the message; `page`: where
    `functions` are listed.
    Raises ConfigurationError naming what is not allowed and what is.
    """
    if not isinstance(sql, str) or not sql.strip():
        raise ConfigurationError(
            "an SQL expression is expected", where=where, value=sql, remedy="Write it as a quoted string"
        )
    try:
        statements = sqlglot.parse(f"select {sql}\n", dialect="duckdb")
    except sqlglot.errors.SqlglotError as error:
        detail = str(error).splitlines()[0]
        raise _fail(f"not valid SQL: {detail}", sql, where, "Correct the expression") from None
    select = statements[0]
    if len(statements) != 1 or not isinstance(select, exp.Select) or len(select.expressions) != 1:
        raise _fail("exactly one expression is expected", sql, where, "Remove commas and semicolons outside it")
    expression = select.expressions[0]
    extra = {key for key, value in select.args.items() if value and key not in ("expressions", "kind")}
    if extra or isinstance(expression, exp.Alias):
        raise _fail("only an expression, no clause of a query", sql, where, "Remove FROM, WHERE, AS and the like")
    _check_nodes(expression, sql, where, {name.lower() for name in columns}, functions, page=page)
    return str(expression.sql(dialect="duckdb", comments=False))


def _check_nodes(
    expression: exp.Expression, sql: str, where: str, columns: set[str], functions: Collection[str], *, page: str
) -> None:
    for node in expression.walk():
        if isinstance(node, _REFUSED_NODES):
            raise _fail(f"{type(node).__name__.lower()} is not allowed here", sql, where, "Use plain expressions")
        if isinstance(node, exp.Column):
            if node.table or node.name.lower() not in columns:
                known = ", ".join(sorted(columns))
                raise _fail(f"unknown column {node.sql()!r}", sql, where, f"Known columns: {known}")
        elif (name := refused_function(node, functions)) is not None:
            raise _fail(
                f"function {name!r} is not allowed",
                sql,
                where,
                f"Only deterministic functions on the allow-list may be used; {page} lists them",
            )
        elif isinstance(node, exp.Pad) and not _is_short(node.expression):
            raise _fail(
                f"the length of lpad and rpad is a number up to {MAX_PADDING}", sql, where, "Write a smaller number"
            )


def _is_short(length: exp.Expression) -> bool:
    return isinstance(length, exp.Literal) and length.name.isdigit() and int(length.name) <= MAX_PADDING
