"""`journeys explain`: a table's meaning and where its numbers come from, for every table there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import UsageError
from schemas.settings import PROJECT_DIR
from warehouse.explain import body, explain, head
from warehouse.models import MADE_BY_CODE, load_models, load_silver

SQL_DIR = PROJECT_DIR / "sql"
SILVER = [model.name for model in load_silver(SQL_DIR)]
MODELS = [model.name for model in load_models(SQL_DIR)]


@pytest.mark.parametrize("table", [*SILVER, *MODELS, *MADE_BY_CODE])
def test_every_table_is_explained_by_what_makes_it(table: str) -> None:
    explanation = explain(table)
    assert (PROJECT_DIR / explanation.made_by).is_file()
    assert len(body(explanation)) > 50
    assert explanation.columns and set(explanation.grain) <= {column["name"] for column in explanation.columns}


def test_a_model_is_explained_down_to_silver() -> None:
    explanation = explain("stage_conversion")
    assert list(explanation.upstream) == ["stage_conversion", "breakdown_values", "stage_entries", "stage_chains"]
    assert explanation.upstream["stage_chains"] == ["parameters", "touchpoints"]
    lines = head(explanation)
    assert lines[0] == "stage_conversion (gold, published)"
    assert "           stage_chains reads parameters, touchpoints" in lines
    assert body(explanation) == (SQL_DIR / "gold" / "stage_conversion.sql").read_text().rstrip()


def test_what_is_private_is_said_to_stay() -> None:
    assert head(explain("identity_map"))[0] == "identity_map (silver, stays in the warehouse)"
    assert head(explain("stage_entries"))[0] == "stage_entries (intermediate, stays in the warehouse)"


def test_a_name_that_is_no_table_is_told_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="Did you mean stage_conversion") as caught:
        explain("stage_conversions")
    assert caught.value.exit_code == 2
    with pytest.raises(UsageError, match="Tables: .*touchpoints"):
        explain("xyzzy")


def test_the_command_shows_columns_checks_and_sql() -> None:
    command = [str(Path(sys.executable).with_name("journeys")), "explain", "retention"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for part in (
        "Grain      cohort_start_date",
        "Columns",
        "bounded_ratio",
        "Checks",
        "unknown_is_null",
        "from counted",
    ):
        assert part in shown
    without = subprocess.run([*command, "--no-code"], capture_output=True, text=True, check=True).stdout
    assert "from counted" not in without
