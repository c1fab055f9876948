"""`journeys explain TABLE`: what a table means and where its numbers come from, from the files that make it."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from schemas.errors import UsageError
from schemas.settings import PROJECT_DIR
from warehouse.models import MADE_BY_CODE, Model, TableDescription, load_description, load_models
from warehouse.models import load_silver as load_silver_tables

_MADE_IN = {"identity_map": "transforms/identity.py", "quarantine": "transforms/bronze.py"}
"""Silver tables whose module has another name than theirs."""


@dataclass(frozen=True)
class Explanation:
    """One table: `upstream` maps it, and every model it rests on, to the tables they read."""

    table: str
    layer: str
    is_published: bool
    description: str
    definition: str
    grain: tuple[str, ...]
    columns: list[dict[str, str]]
    checks: list[dict[str, str]]
    upstream: dict[str, list[str]]
    made_by: str
    code: str

    def as_json(self) -> dict[str, Any]:
        """The explanation for `--json`."""
        return asdict(self)


def explain(table: str, *, sql_dir: Path = PROJECT_DIR / "sql") -> Explanation:
    """Explain a silver, gold or intermediate table. Raises UsageError for a name that is none."""
    silver = {model.name: model for model in load_silver_tables(sql_dir)}
    models = {model.name: model for model in load_models(sql_dir)}
    if table in models:
        return _explain_model(models[table], models)
    if table in silver:
        made_by = _MADE_IN.get(table, f"transforms/{table}.py")
        return _explain_code(table, "silver", silver[table].description, made_by)
    if table in MADE_BY_CODE:
        return _explain_code(table, "gold", load_description(sql_dir / "gold" / f"{table}.yml"), "warehouse/gates.py")
    known = sorted({*silver, *models, *MADE_BY_CODE})
    close = difflib.get_close_matches(table, known, n=1)
    raise UsageError(
        "there is no such table",
        value=table,
        remedy=f"Did you mean {close[0]}?" if close else f"Tables: {', '.join(known)}",
    )


def _explain_model(model: Model, models: Mapping[str, Model]) -> Explanation:
    return _explanation(
        model.name,
        model.path.parent.name,
        model.description,
        definition="",
        upstream=_upstream(model.name, models),
        made_by=str(model.path.relative_to(PROJECT_DIR)) if model.path.is_relative_to(PROJECT_DIR) else str(model.path),
        code=model.code,
        is_published=model.is_published,
    )


def _explain_code(table: str, layer: str, description: TableDescription, made_by: str) -> Explanation:
    """A table that Python makes: the module's own words are its definition."""
    text = ast.get_docstring(ast.parse((PROJECT_DIR / made_by).read_text(encoding="utf-8"))) or ""
    return _explanation(
        table,
        layer,
        description,
        definition=text,
        upstream={},
        made_by=made_by,
        code="",
        is_published=table not in ("quarantine", "identity_map"),
    )


def _explanation(table: str, layer: str, description: TableDescription, **more: Any) -> Explanation:
    return Explanation(
        table=table,
        layer=layer,
        description=" ".join(description.description.split()),
        grain=description.grain,
        columns=[column.model_dump() for column in description.columns],
        checks=[
            {"name": check.name, "severity": check.severity, "expected": check.expectation}
            for check in description.checks
        ],
        **more,
    )


def _upstream(table: str, models: Mapping[str, Model]) -> dict[str, list[str]]:
    """The table and every model under it, each with what it reads; the table itself first."""
    found: dict[str, list[str]] = {}
    waiting = [table]
    while waiting:
        name = waiting.pop(0)
        if name in found or name not in models:
            continue
        found[name] = sorted(models[name].depends_on)
        waiting += found[name]
    return found


def head(explanation: Explanation) -> list[str]:
    """What stands above its columns, for people: meaning, grain, what makes it, what it rests on."""
    where = f"{explanation.layer}, {'published' if explanation.is_published else 'stays in the warehouse'}"
    lines = [f"{explanation.table} ({where})", "", explanation.description, ""]
    lines += [f"Grain      {', '.join(explanation.grain)}", f"Made by    {explanation.made_by}"]
    for name, tables in explanation.upstream.items():
        reads = ", ".join(tables)
        lines.append(f"Reads      {reads}" if name == explanation.table else f"           {name} reads {reads}")
    return lines


def body(explanation: Explanation) -> str:
    """What stands below: the words of the code that makes it, or its SQL."""
    return explanation.definition or explanation.code.rstrip()
