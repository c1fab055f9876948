"""Python models: what SQL cannot say, such as a linear solve, as one small pure function per table.

`sql/intermediate/<table>.py` holds `READS`, the tables it needs, and `model(tables)`, which takes them as Arrow tables
by name and answers the rows of its own. Its `.yml` gives the columns and their types, as for any model. Rows come in
no order: a model sorts what it sums, so that the answer depends on nothing else.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb

from schemas.errors import ConfigurationError, ModelError


def reads(path: Path) -> frozenset[str]:
    """The tables a Python model declares to read; its code is not run. Raises ConfigurationError."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ConfigurationError(
            f"not valid Python: {error.msg}", where=f"{path}:{error.lineno}", remedy="Correct the model"
        ) from None
    named = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    if "READS" not in named or "model" not in functions:
        raise ConfigurationError(
            "a Python model needs READS and model(tables)", where=str(path), remedy="See sql/README.md"
        )
    return frozenset(ast.literal_eval(named["READS"]))


def run(con: duckdb.DuckDBPyConnection, path: Path, tables: Sequence[str]) -> Any:
    """Call a Python model on its tables; answers its Arrow table. Raises ModelError naming the file."""
    inputs: Mapping[str, Any] = {table: con.table(table).to_arrow_table() for table in tables}
    try:
        return _load(path).model(inputs)
    except Exception as error:
        raise ModelError(
            f"the model failed: {type(error).__name__}: {error}", where=str(path), remedy="Correct the model"
        ) from error


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"journeys_model_{path.stem}", path)
    assert spec and spec.loader, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
