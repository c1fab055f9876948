"""Nights: repeated, cut, moved back, killed, reconfigured. Whatever happens, the tables are those of one full build."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dags import steps
from ingest.dead_letters import forward
from ingest.scenario.people import Record
from schemas.errors import BuildError, GateFailedError, UsageError
from schemas.settings import PROJECT_DIR
from schemas.topics import DEAD_LETTER_TOPIC
from warehouse import night
from warehouse.publish import UNFINISHED

JOURNEYS = str(Path(sys.executable).with_name("journeys"))


def skipped(results: list[dict[str, Any]]) -> list[bool]:
    return [result["is_skipped"] for result in results]


@pytest.mark.slow
def test_the_same_run_again_does_nothing_and_another_run_publishes_equal_tables(built: Any) -> None:
    first = built.publish()
    before, folder = built.tables(), built.current.resolve()
    assert skipped(built.night("r1")) == [True, True, True]
    assert (built.current.resolve(), first["path"]) == (folder, str(folder))

    assert skipped(built.night("r2")) == [False, False, False]
    assert built.current.resolve().name == "r2"
    assert built.manifest()["run_id"] == "r2"
    assert built.tables() == before


def test_a_deleted_publication_is_made_again_under_the_same_run(built: Any) -> None:
    built.publish()
    before = built.tables()
    built.current.unlink()
    assert built.publish()["is_skipped"] is False
    assert built.current.resolve().name == "r1.2"
    assert built.tables() == before


@pytest.mark.slow
def test_a_night_in_several_cuts_publishes_what_one_full_build_publishes(
    new_home: Callable[[], Any], shared: Any, scenario: list[Record]
) -> None:
    cut_home, rng = new_home(), random.Random(5)
    marks = sorted(rng.sample(range(1, len(scenario)), 4))
    for number, (start, end) in enumerate(zip([0, *marks], [*marks, len(scenario)], strict=True)):
        cut_home.add(scenario[start:end], f"cut-{number}")
        cut_home.land()
        cut_home.silver(f"night-{number}")
    cut_home.night("last")
    # Only where a record came from differs: its file and the line in it.
    place = ("_topic", "_partition", "_offset")
    full = shared.tables(without=place)
    assert cut_home.tables(without=place) == full
    assert skipped(cut_home.night("full", full=True)) == [False, False, False]
    assert cut_home.tables(without=place) == full


def test_as_of_moves_back_only_with_full(built: Any) -> None:
    newest = datetime.fromisoformat(built.silver()["data_as_of"])
    earlier = newest - timedelta(days=10)
    with pytest.raises(UsageError, match=r"data_as_of may not move back from .*journeys build --full --as-of T"):
        built.silver("r2", data_as_of=earlier)
    assert built.silver("r2", data_as_of=earlier, full=True)["data_as_of"] == earlier.isoformat()
    # Derived from the data it is the newest touchpoint again, and never lies before the last build's.
    assert built.silver("r3")["data_as_of"] == newest.isoformat()
    later = newest + timedelta(days=10)
    assert built.silver("r4", data_as_of=later)["data_as_of"] == later.isoformat()
    assert built.silver("r5")["data_as_of"] == later.isoformat()


@pytest.mark.slow
def test_a_changed_journey_yml_is_built_anew_and_gives_another_definition_hash(built: Any) -> None:
    assert built.silver()["is_skipped"] is True
    before = built.publish()
    manifest = built.manifest()
    built.config.write_text("reporting_timezone: Asia/Tokyo\n")
    # Publishing alone publishes what was built, and says so.
    assert built.publish()["is_skipped"] is True
    again = built.silver()
    assert (again["is_skipped"], again["definition_hash"] != manifest["definition_hash"]) == (False, True)
    with pytest.raises(BuildError, match=r"silver was rebuilt after gold"):
        built.publish("r2")
    steps.gold(built.settings, run_id="r1")
    assert built.publish()["path"] != before["path"]
    assert built.manifest()["definition_hash"] == again["definition_hash"]


def test_a_step_that_fails_midway_keeps_nothing_of_itself(built: Any) -> None:
    """The second model cannot be built: the first, built already, is as it was, and no record says otherwise."""

    def ask(sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(built.settings.warehouse_path)) as con:
            return con.execute(sql).fetchall()

    ask("alter table retention_definitions rename to away")
    with pytest.raises(BuildError, match=r"retention_\w+\.sql: the model failed: Catalog Error"):
        steps.gold(built.settings, run_id="r2")
    assert ask("select distinct _run_id from breakdown_values") == [("r1",)]
    assert ask("select run_id, step from run_steps order by all") == [
        ("r1", "gold"),
        ("r1", "publish"),
        ("r1", "silver"),
    ]
    ask("alter table away rename to retention_definitions")
    assert steps.gold(built.settings, run_id="r2")["is_skipped"] is False


def test_gold_and_publish_need_what_comes_before_them(home: Any) -> None:
    with pytest.raises(BuildError, match="no silver was built yet"):
        steps.gold(home.settings, run_id="r1")
    with pytest.raises(BuildError, match="no gold was built yet"):
        home.publish()


@pytest.mark.parametrize("run_id", ["../escape", "current", ".hidden", "", "a/b", "x" * 300])
def test_a_run_id_that_is_no_folder_name_is_refused(home: Any, run_id: str) -> None:
    for step in (home.silver, home.publish, lambda name: steps.gold(home.settings, run_id=name)):
        with pytest.raises(UsageError, match="not a run id"):
            step(run_id)


def test_a_contract_that_changed_judges_the_quarantine_again(built: Any) -> None:
    """`earliest_occurred_at` is part of the contract: a record of 1970 is refused by the shipped one."""
    old = built.quarantine("count(*) filter (field = 'occurred_at'), count(*)")
    assert night.replay_rejected(built.settings) == (0, old[0][1])
    built.config.write_text("earliest_occurred_at: 1960-01-01\n")
    accepted, remaining = night.replay_rejected(built.settings)
    assert (accepted, remaining) == (1, old[0][1] - 1)
    assert remaining == len(built.quarantine())
    result = built.silver("r2", data_as_of=datetime(2026, 3, 1, tzinfo=UTC))
    assert result["row_counts"]["touchpoints"] > 0
    assert len(built.quarantine()) == remaining


def dead_letters(home: Any) -> list[tuple[str, str]]:
    files = sorted((home.drop / DEAD_LETTER_TOPIC).glob("*.ndjson"))
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [(line["topic"], line["offset"]) for line in lines]


def test_rejects_are_forwarded_once_whatever_is_built_again(
    new_home: Callable[[], Any], scenario: list[Record]
) -> None:
    home = new_home()
    home.add(scenario, "all")
    home.land()
    count = home.silver()["dead_letter_count"]
    assert count == len(home.quarantine()) == len(set(dead_letters(home))) > 10
    assert home.silver()["dead_letter_count"] == 0
    assert home.silver("r2", full=True)["dead_letter_count"] == 0
    assert len(dead_letters(home)) == count


def test_a_kill_between_sending_and_remembering_repeats_letters_that_are_recognised(
    new_home: Callable[[], Any], scenario: list[Record]
) -> None:
    home = new_home()
    home.add(scenario, "all")
    home.land()
    night.build_silver(home.settings, run_id="r1")
    sent = 0
    for rows in night.unforwarded_rejects(home.settings, batch_rows=4):
        sent += forward(home.url, rows, home.settings)
        break  # killed here: sent, not remembered
    assert home.silver()["dead_letter_count"] == len(home.quarantine())
    letters = dead_letters(home)
    assert (len(letters), len(set(letters))) == (len(home.quarantine()) + sent, len(home.quarantine()))


BEGINNINGS = {"landing": "", "silver": "landed ", "gold": " silver: run ", "gates": " gold: run ", "publishing": None}
"""What the log of a night says when a step begins; publishing shows in its folder."""


def kill_night(home: Any, run_id: str, step: str, after_seconds: float) -> bool:
    """Start a real `journeys night`, SIGKILL it some time into a step; answers whether it was still at work."""
    log, mark = home.folder / "night.log", BEGINNINGS[step]
    folders = home.settings.published_dir

    def _begun() -> bool:
        if mark is None:
            return any((path / UNFINISHED).exists() for path in folders.glob(f"*{run_id}*"))
        return mark in log.read_text()

    with log.open("w") as stream:
        process = subprocess.Popen(
            [JOURNEYS, "-v", "--home", home.settings.home, "--config", home.config, "night", "--run-id", run_id],
            stdout=subprocess.DEVNULL,
            stderr=stream,
            env={**os.environ, "JOURNEYS_SOURCE": home.url},
            cwd=PROJECT_DIR,
        )
    while process.poll() is None and not _begun():
        time.sleep(0.005)
    try:
        process.wait(after_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait() == -signal.SIGKILL


def kill_nights(
    home: Any, more: list[Record], undisturbed: dict[str, list[str]], *, kills: int, seed: int
) -> dict[str, Any]:
    """Kill `night` after `night`, each in another step; readers keep what they had or see a whole new publication."""
    before = home.tables()
    home.add(more, "second")
    rng, figures = random.Random(seed), Counter[str]()
    for attempt in range(3 * kills):
        if figures["kills"] == kills:
            break
        step = list(BEGINNINGS)[attempt % len(BEGINNINGS)]
        # Half of the retries resume the night that was killed, the others are nights of their own.
        run_id = "second" if rng.random() < 0.5 else f"other-{attempt}"
        was_killed = kill_night(home, run_id, step, rng.random() * 0.6)
        figures.update(["kills", f"kills_in_{step}"] if was_killed else ["finished_before"])
        if step == "publishing":
            figures["publications_left_half_written"] += any(home.settings.published_dir.glob(f"*/{UNFINISHED}"))
        is_new = home.manifest()["run_id"] != "first"
        assert home.tables() == (undisturbed if is_new else before), f"{dict(figures)}, killed in {step}"
    assert figures["kills"] == kills
    home.night("last")
    assert home.tables() == undisturbed
    assert not list(home.settings.published_dir.glob(f"*/{UNFINISHED}"))
    return dict(figures)


def two_nights(new_home: Callable[[], Any], scenario: list[Record]) -> tuple[Any, list[Record], dict[str, list[str]]]:
    cut = len(scenario) * 2 // 3
    undisturbed, home = new_home(), new_home()
    for one in (undisturbed, home):
        one.add(scenario[:cut], "first")
        one.night("first")
    undisturbed.add(scenario[cut:], "second")
    undisturbed.night("second")
    return home, scenario[cut:], undisturbed.tables()


@pytest.mark.slow
def test_a_night_killed_at_five_instants_leaves_the_publication_and_completes_when_retried(
    new_home: Callable[[], Any], scenario: list[Record]
) -> None:
    home, more, undisturbed = two_nights(new_home, scenario)
    kill_nights(home, more, undisturbed, kills=5, seed=3)


@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_a_night_killed_at_forty_instants_leaves_the_publication_and_completes_when_retried(
    new_home: Callable[[], Any], scenario: list[Record], figures: Callable[..., None]
) -> None:
    home, more, undisturbed = two_nights(new_home, scenario)
    figures(**kill_nights(home, more, undisturbed, kills=40, seed=int(time.time())))


def test_a_damaged_landed_file_stops_a_night_with_its_name(built: Any) -> None:
    file = sorted(built.settings.landing_dir.rglob("*.parquet"))[0]
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(BuildError, match=rf"{file.name}: the landed file cannot be read: .*Restore it from a backup"):
        built.silver("r2", full=True)


def test_a_build_before_any_landing_does_not_know_how_it_went(home: Any) -> None:
    home.build("r1")
    with duckdb.connect(str(home.settings.warehouse_path)) as con:
        sql = "select observed, passed from data_quality where check_name = 'landing_problem_count'"
        assert con.execute(sql).fetchall() == [(None, True)]


def test_a_build_that_landed_nothing_keeps_what_the_last_landing_found(built: Any) -> None:
    """`journeys build` after a strict night was stopped must not pass as if all had been landed."""

    def recorded() -> list[tuple[Any, ...]]:
        with duckdb.connect(str(built.settings.warehouse_path)) as con:
            sql = "select observed, passed from data_quality where run_id = ? and check_name = 'landing_problem_count'"
            return con.execute(sql, [run_id]).fetchall()

    for run_id, found, kept in (
        ("as-the-night-found", None, (0.0, True)),
        ("stopped", 2, (2.0, False)),
        ("by-hand", None, (2.0, False)),
        ("mended", 0, (0.0, True)),
        ("by-hand-again", None, (0.0, True)),
    ):
        night.build_silver(built.settings, run_id=run_id, landing_problem_count=found)
        night.build_gold(built.settings, run_id=run_id)
        assert recorded() == [kept], run_id
    built.config.write_text("quality:\n  landing_problem_count: {fail: 0}\n")
    night.build_silver(built.settings, run_id="strict", landing_problem_count=1)
    for run_id in ("strict", "by-hand"):
        night.build_silver(built.settings, run_id=run_id)
        with pytest.raises(GateFailedError, match="landing_problem_count did not hold"):
            night.build_gold(built.settings, run_id=run_id)
        with pytest.raises(GateFailedError, match="landing_problem_count did not hold"):
            built.publish(run_id)
