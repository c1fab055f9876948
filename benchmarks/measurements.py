"""What the measured numbers share: where they are written, and on what machine they were seen."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PROJECT_DIR = Path(__file__).resolve().parent.parent
FOLDER = PROJECT_DIR / "docs" / "measurements"
PARTS = ("duckdb", "pyarrow", "pydantic", "kafka-python", "apache-airflow")


def machine() -> str:
    """One line about the machine and the versions a measurement was made with."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = ", ".join(f"{part} {version(part)}" for part in PARTS)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.machine()} "
        f"{platform.system()}, Python {platform.python_version()}, {parts}"
    )


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)]) + "\n"


def write_page(name: str, title: str, body: str) -> Path:
    """Write `docs/measurements/<name>.md` and answer its path."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.md"
    path.write_text(f"# {title}\n\nMeasured {machine()}.\n\n{body}", encoding="utf-8")
    return path
