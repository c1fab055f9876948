"""Lint of the SQL models: the portable subset, so that the same files run on DuckDB and on Spark.

`python -m warehouse.lint` prints every finding as `file: what; remedy` and exits 1 when there is one. What it holds:

- a model parses as DuckDB's SQL and as Spark's;
- functions are on the list below or made by both preludes, under the same name with the same parameters;
- nothing that the engines read differently: `::`, `varchar` without length, `qualify`, `distinct on`,
  `group by all`, `select *` as the contract, lists whose order is lost, windows without an order.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlglot
from sqlglot import exp

from schemas.errors import JourneysError
from schemas.expressions import function_name, function_names, is_operator
from schemas.settings import PROJECT_DIR
from warehouse.models import Model, load_models

PORTABLE_FUNCTIONS = frozenset(
    "abs avg cast ceil coalesce count exp floor greatest if least lag lead length ln lower max min nullif "
    "percentile_cont power rank dense_rank row_number round sqrt substring sum trim upper first_value last_value "
    "concat".split()
)
"""Of the same name and meaning in DuckDB and Spark."""

_ORDERED_WINDOW_FUNCTIONS = (exp.RowNumber, exp.Lag, exp.Lead, exp.FirstValue, exp.LastValue, exp.Rank, exp.DenseRank)
_ENGINES = ("duckdb", "spark")
_MACRO = re.compile(r"create or replace (?:macro|temporary function) (\w+)\(((?:[^()]|\([^()]*\))*)\)", re.IGNORECASE)
_TYPE_ARGUMENTS = re.compile(r"\([^()]*\)")


def prelude_functions(path: Path) -> dict[str, tuple[str, ...]]:
    """Functions a prelude makes: name and parameter names, types left out."""
    return {
        name: tuple(parameter.split()[0] for parameter in _TYPE_ARGUMENTS.sub("", parameters).split(","))
        for name, parameters in _MACRO.findall(path.read_text(encoding="utf-8"))
    }


def lint_preludes(prelude_dir: Path) -> Iterator[str]:
    """Findings about the preludes: a function that one engine lacks or spells otherwise."""
    made = {engine: prelude_functions(prelude_dir / f"{engine}.sql") for engine in _ENGINES}
    for name in sorted(set(made["duckdb"]) | set(made["spark"])):
        duckdb, spark = made["duckdb"].get(name), made["spark"].get(name)
        if duckdb != spark:
            yield f"{name}: duckdb.sql has {duckdb}, spark.sql has {spark}; make both equal"


def lint_model(sql: str, prelude: frozenset[str]) -> Iterator[str]:
    """Findings about one model's text; `prelude` names the functions that both preludes make."""
    trees = {}
    for engine in _ENGINES:
        try:
            trees[engine] = sqlglot.parse_one(sql, dialect=engine)
        except sqlglot.errors.SqlglotError as error:
            yield f"does not parse as {engine} SQL: {str(error).splitlines()[0]}; use standard SQL"
            return
    if "::" in sql:
        yield "`::` is a cast in one engine only; write cast(… as …)"
    tree = trees["duckdb"]
    if isinstance(tree, exp.Select) and tree.find(exp.Star) in tree.expressions:
        yield "the final select is `*`; list the columns, they are the contract"
    for node in tree.walk():
        if (
            isinstance(node, exp.Func)
            and not is_operator(node)
            and not function_names(node) & (PORTABLE_FUNCTIONS | prelude)
        ):
            yield f"{function_name(node)}() is not portable; use standard SQL or add it to both preludes"
        for kind, remedy in _REFUSED.items():
            if isinstance(node, kind):
                yield remedy
        for holds, remedy in _TRAPS:
            if holds(node):
                yield remedy


_REFUSED: dict[type[exp.Expression], str] = {
    exp.Qualify: "`qualify` is not standard; filter in a CTE",
    exp.Lambda: "lambdas are spelled differently; use standard SQL",
    exp.Struct: "structs are spelled differently; use columns",
    exp.Array: "lists are spelled differently; use rows",
    exp.Lateral: "lateral joins are not portable; use a join",
    exp.TableSample: "a sample is not deterministic",
}


def _is_distinct_on(node: exp.Expression) -> bool:
    return isinstance(node, exp.Distinct) and node.args.get("on") is not None


def _is_group_by_all(node: exp.Expression) -> bool:
    return isinstance(node, exp.Group) and bool(node.args.get("all"))


def _lacks_order(node: exp.Expression) -> bool:
    if not isinstance(node, exp.Window) or node.args.get("order") or node.args.get("alias"):
        return False
    # A window's definition under `window … as` holds a name where a use holds a function.
    return isinstance(node.this, (*_ORDERED_WINDOW_FUNCTIONS, exp.Identifier))


_TRAPS: tuple[tuple[Callable[[exp.Expression], bool], str], ...] = (
    (_is_distinct_on, "`distinct on` is not standard; use row_number() in a CTE"),
    (_is_group_by_all, "`group by all` is not standard; name the columns"),
    (_lacks_order, "a window function without `order by` gives any order; add a total order"),
)


def lint_text(sql: str) -> Iterator[str]:
    """Findings that only the text shows, because the parser reads both spellings alike."""
    code = re.sub(r"--[^\n]*|'[^']*'", "", sql)
    if re.search(r"\bas\s+varchar\s*\)", code, re.IGNORECASE):
        yield "`varchar` needs a length in Spark; write `string`"
    for number, line in enumerate(sql.splitlines(), start=1):
        if "\t" in line or line != line.rstrip():
            yield f"line {number}: tab or trailing space; remove it"
        if len(line) > 120:
            yield f"line {number}: longer than 120 characters; break it"
    if "{{" in sql or "{%" in sql:
        yield "no Jinja; a model is a bare SELECT"


def findings(sql_dir: Path) -> list[str]:
    """Every finding under `sql/`. Raises ConfigurationError where a model cannot be loaded at all."""
    prelude_dir = sql_dir / "prelude"
    found = [f"{prelude_dir}: {finding}" for finding in lint_preludes(prelude_dir)]
    prelude = frozenset(prelude_functions(prelude_dir / "duckdb.sql"))
    models: list[Model] = load_models(sql_dir)
    for model in models:
        if model.is_python:  # ruff and mypy read those
            continue
        for finding in dict.fromkeys([*lint_text(model.code), *lint_model(model.code, prelude)]):
            found.append(f"{model.path}: {finding}")
    return found


def main() -> int:
    """Print what was found; the exit code says whether there was anything."""
    try:
        found = findings(PROJECT_DIR / "sql")
    except JourneysError as error:
        found = [str(error)]
    for finding in found:
        print(finding, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
