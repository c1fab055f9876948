"""Gates: a `fail` check stops the night before publishing, a `warn` check tells, and both leave their record."""

from __future__ import annotations

import json
import logging
import pickle
from typing import Any

import duckdb
import pytest

from dags import steps
from schemas.errors import GateFailedError
from warehouse.gates import latest_checks

TIGHT = "quality:\n  quarantined_ratio: {warn: 0.001, fail: 0.002}\n"


def recorded(home: Any, run_id: str) -> dict[tuple[str, str, str], tuple[Any, ...]]:
    """observed, expected and passed of each (table, check, severity)."""
    with duckdb.connect(str(home.settings.warehouse_path), read_only=True) as con:
        rows = con.execute(
            "select table_name, check_name, severity, observed, expected, passed from data_quality where run_id = ?",
            [run_id],
        ).fetchall()
    return {row[:3]: row[3:] for row in rows}


@pytest.mark.slow
def test_a_failed_check_stops_before_publishing_until_its_cause_is_mended(built: Any) -> None:
    built.publish()
    before = built.tables()
    built.config.write_text(TIGHT)
    built.silver("r2")
    with pytest.raises(
        GateFailedError,
        match=r"^table quarantine: check quarantined_ratio did not hold: expected at most 0\.002 \(got 0\.0[01]\d+\)\. "
        r"Nothing was published, readers keep the last publication",
    ) as caught:
        steps.gold(built.settings, run_id="r2")
    assert caught.value.exit_code == 1
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # it crosses Airflow's processes
    # The failure is on record, and neither publishing nor asking again gets around it.
    observed, expected, passed = recorded(built, "r2")["quarantine", "quarantined_ratio", "fail"]
    assert (observed > 0.002, expected, passed) == (True, "at most 0.002", False)
    with pytest.raises(GateFailedError):
        steps.gold(built.settings, run_id="r2")
    with pytest.raises(GateFailedError):
        built.publish("r2")
    assert built.manifest()["run_id"] == "r1"
    assert built.tables() == before
    failed = [row for row in latest_checks(built.settings) if not row["passed"]]
    assert [(row["check_name"], row["severity"]) for row in failed] == [
        ("quarantined_ratio", "fail"),
        ("quarantined_ratio", "warn"),
    ]
    # Mended in journey.yml, the gold step alone judges anew: its message said so.
    built.config.write_text("{}\n")
    assert steps.gold(built.settings, run_id="r2")["is_skipped"] is False


def test_a_broken_table_fails_its_check_and_names_it(built: Any) -> None:
    with duckdb.connect(str(built.settings.warehouse_path)) as con:
        con.execute("insert into orders select * from orders limit 1")
    with pytest.raises(
        GateFailedError, match=r"table \w+: check \w+ did not hold \(and \d+ more\): expected .* \(got \d+\.0\)"
    ):
        steps.gold(built.settings, run_id="r2")
    assert recorded(built, "r2")["orders", "one_row_per_order", "fail"] == (1.0, "unique: order_id", False)


@pytest.mark.slow
def test_a_warning_is_logged_recorded_and_published(shared: Any, built: Any, caplog: pytest.LogCaptureFixture) -> None:
    built.config.write_text("quality:\n  quarantined_ratio: {warn: 0.001, fail: 0.9}\n")
    with caplog.at_level(logging.WARNING, logger="warehouse.gates"):
        built.night("r2")
    told = [record.getMessage() for record in caplog.records if record.name == "warehouse.gates"]
    assert any(text.startswith("check quarantined_ratio on quarantine: observed 0.0") for text in told)
    with duckdb.connect(str(built.current.resolve() / "journeys.duckdb"), read_only=True) as con:
        found = con.execute(
            "select severity, passed, table_name from data_quality where run_id = 'r2' "
            "and check_name = 'quarantined_ratio' order by 1"
        ).fetchall()
    assert found == [("fail", True, "quarantine"), ("warn", False, "quarantine")]


def test_great_expectations_keeps_its_verdict_on_every_check(shared: Any) -> None:
    record = json.loads((shared.settings.home / "quality" / "r1.json").read_text())
    verdicts = {item["expectation_config"]["kwargs"]["column"]: item["success"] for item in record["results"]}
    checks = {".".join(key): row[2] for key, row in recorded(shared, "r1").items()}
    assert verdicts == checks
    assert len(verdicts) == len(record["results"]) == record["statistics"]["evaluated_expectations"] > 50
    assert verdicts["quarantine.quarantined_ratio.fail"] is True
    assert verdicts["quarantine.quarantined_ratio.warn"] is False


def test_great_expectations_says_nothing_of_its_own(home: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        home.build()
    names = {record.name for record in caplog.records}
    assert "warehouse.models" in names
    assert not {name for name in names if name.startswith("great_expectations")}


def test_a_build_without_touchpoints_warns_and_is_recorded(home: Any, caplog: pytest.LogCaptureFixture) -> None:
    home.build()
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    expected = "a touchpoint by 1970-01-01T00:00:00+00:00 (1: there is none)"
    assert told == [f"check has_touchpoints on touchpoints: observed 1.0, expected {expected}"]
    assert recorded(home, "r1")["touchpoints", "has_touchpoints", "warn"] == (1.0, expected, False)
    home.publish()  # where nothing was published, nothing is lost
    assert home.manifest()["tables"]["touchpoints"]["row_count"] == 0


def test_a_build_with_touchpoints_has_them(shared: Any) -> None:
    observed, _, passed = recorded(shared, "r1")["touchpoints", "has_touchpoints", "warn"]
    assert (observed, passed) == (0.0, True)
