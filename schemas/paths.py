"""Paths as DuckDB's readers take them: they see a pattern in every path, and a pattern may match another file."""

from __future__ import annotations

from pathlib import Path

_LITERAL = str.maketrans({"[": "[[]", "*": "[*]", "?": "[?]"})


def literal_path(path: Path | str) -> str:
    """The pattern that matches this one path: for `read_parquet`, `read_csv`, `read_json` and lists of paths."""
    return str(path).translate(_LITERAL)
