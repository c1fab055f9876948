"""What the docs show is what a newcomer sees: every query with an answer runs on the demo's own data, as written.

`JOURNEYS_WRITE_ANSWERS=1 pytest tests/test_documented_queries.py` writes today's answers into the pages.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.settings import PROJECT_DIR
from warehouse.publish import PRIVATE_TABLES

PAGES = ("README.md", "docs/analysts.md", "docs/funnels.md")
EXAMPLE = re.compile(r"```sql\n(?P<sql>[^`]*)```\n\n```text\n(?P<answer>[^`]*)```")


def examples(page: str) -> list[re.Match[str]]:
    path = PROJECT_DIR / page
    return list(EXAMPLE.finditer(path.read_text(encoding="utf-8"))) if path.exists() else []


def ask(home: Path, sql: str) -> str:
    command = [str(Path(sys.executable).with_name("journeys")), "--home", str(home), "query", sql]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, f"{sql}\n{answer.stderr}"
    return answer.stdout


def without_margin(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_query_of_the_page_answers_what_the_page_shows(demo_home: Path, page: str) -> None:
    found = examples(page)
    assert found
    answers = [ask(demo_home, example["sql"]) for example in found]
    if os.environ.get("JOURNEYS_WRITE_ANSWERS"):
        write(PROJECT_DIR / page, found, answers)
    for example, answer in zip(found, answers, strict=True):
        shown = without_margin(example["answer"])
        assert without_margin(answer) == shown, f"{page} shows another answer to\n{example['sql']}now it is\n{answer}"


def write(path: Path, found: list[re.Match[str]], answers: list[str]) -> None:
    text = path.read_text(encoding="utf-8")
    for example, answer in reversed(list(zip(found, answers, strict=True))):
        start, end = example.span("answer")
        text = text[:start] + "\n".join(without_margin(answer)) + "\n" + text[end:]
    path.write_text(text, encoding="utf-8")


def test_every_published_table_has_an_example() -> None:
    published = {path.stem for layer in ("silver", "gold") for path in (PROJECT_DIR / "sql" / layer).glob("*.yml")}
    shown = " ".join(example["sql"] for page in PAGES for example in examples(page))
    missing = {table for table in published - set(PRIVATE_TABLES) if not re.search(rf"\b{table}\b", shown)}
    assert not missing, f"no query of {', '.join(PAGES)} reads {sorted(missing)}; add one with its answer"
