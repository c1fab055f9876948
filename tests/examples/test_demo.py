"""`make demo` as a newcomer runs it: what it says, and that a second one adds nothing twice."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from schemas.settings import PROJECT_DIR

pytestmark = pytest.mark.slow


def manifest(home: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((home / "published" / "current" / "manifest.json").read_text())
    return content


def run_demo(home: Path, **environment: str) -> str:
    command = [sys.executable, str(PROJECT_DIR / "examples" / "demo.py")]
    variables = {**os.environ, "JOURNEYS_HOME": str(home), **environment}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_it_names_its_transport_runs_the_dag_and_ends_with_tables_and_what_to_try(demo_home: Path) -> None:
    said = (demo_home / "said.txt").read_text()
    assert said.startswith("Transport: ")
    if os.environ.get("JOURNEYS_REQUIRE_BROKER"):
        assert said.startswith("Transport: Apache Kafka")
    [(days, events)] = re.findall(r"Sent +[\d,]+ records of (\d+) days: ([\d,]+) events", said)
    assert int(days) >= 30 and int(events.replace(",", "")) >= 200_000
    tasks = re.findall(r"^ +([a-z_]+)(?:\[\d\])? +(success|failed|\w+) +[\d.]+ s$", said, re.MULTILINE)
    assert [name for name, _ in tasks] == ["land"] * 4 + ["silver", "gold", "publish", "confirm_landing"], said
    assert {state for _, state in tasks} == {"success"}
    for title in ("Stage conversion", "Where journeys drop out", "Retention: weekly cohorts"):
        assert title in said
    assert len(re.findall(r"^advocacy +\d+", said, re.MULTILINE)) == 1
    assert "Published: " in said and "Try next:" in said
    assert manifest(demo_home)["data_as_of"].startswith("2026-02-10T00:00:00")


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_a_second_demo_works_and_adds_nothing_twice(tmp_path: Path) -> None:
    counts = []
    for _ in range(2):
        run_demo(tmp_path)
        tables = manifest(tmp_path)["tables"]
        counts.append({name: table["row_count"] for name, table in tables.items() if name != "data_quality"})
    assert counts[0] == counts[1]


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_without_a_broker_it_says_so_and_uses_the_drop_folder(tmp_path: Path, demo_home: Path) -> None:
    said = run_demo(tmp_path, PATH=str(Path(sys.executable).parent))
    assert said.startswith("Transport: the drop folder ")
    of_kafka, of_folder = (
        {name: table["row_count"] for name, table in manifest(home)["tables"].items() if name != "data_quality"}
        for home in (demo_home, tmp_path)
    )
    assert of_folder == of_kafka
