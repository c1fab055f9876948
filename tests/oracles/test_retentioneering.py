"""Sessions, transitions and path steps against retentioneering, on its own synthetic shop of 31,106 events.

The events go the real way: replay by a mapping, drop folder, landing, build with every gate. The peer's unit is a
user's whole path, so paths are compared under a journey.yml that never ends a journey.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pytest

from dags import steps
from ingest.replay import replay
from schemas.settings import load_settings
from schemas.topics import SOURCE_TOPICS
from transforms.parameters import PATH_STEP_LIMIT

os.environ["RETENTIONEERING_NO_TRACK"] = "1"  # it would report each call to its makers

pytestmark = pytest.mark.slow

MAPPING = Path(__file__).parent / "ecom.yml"
EVENT_TYPES = {
    "home": "page_viewed",
    "catalog": "page_viewed",
    "promo_page": "page_viewed",
    "account_page": "page_viewed",
    "review_page": "page_viewed",
    "search": "products_searched",
    "filter_results": "products_searched",
    "product_view": "product_viewed",
    "add_to_cart": "product_added",
    "cart": "cart_viewed",
    "shipping_details": "checkout_started",
    "payment_details": "checkout_started",
    "purchase": "order_completed",
    "error_page": "error_encountered",
    "payment_error": "error_encountered",
    "checkout_bug": "error_encountered",
    "wishlist_add": "custom",
    "compare": "custom",
    "support_chat": "chat_started",
}
AWARENESS = {"page_viewed", "error_encountered", "custom", "chat_started"}
ONE_JOURNEY_PER_USER = """
journey_timeout: 3650 days
conversion: "false"
stage_rules:
  - {stage: purchase, when: "event_type = 'order_completed'"}
  - {stage: awareness, when: "event_type in ('page_viewed', 'error_encountered', 'custom', 'chat_started')"}
  - {stage: consideration, when: "true"}
"""


@pytest.fixture(scope="module")
def peer(oracle: Callable[[str], ModuleType]) -> ModuleType:
    return oracle("retentioneering")


@pytest.fixture(scope="module")
def ecom(peer: ModuleType) -> Any:
    """The peer's stream as a frame, in its order, with an event id per row and the names the mapping gives."""
    frame = peer.datasets.load_ecom().df.reset_index(drop=True)
    frame["event_id"] = [str(uuid.UUID(int=row + 1)) for row in frame.index]
    frame["event_type"] = frame["event"].astype(str).map(EVENT_TYPES)
    frame["channel"] = frame["event_type"].map(lambda name: "support" if name == "chat_started" else "web")
    frame["stage"] = frame["event_type"].map(stage_of)
    return frame


def stage_of(event_type: str) -> str:
    if event_type == "order_completed":
        return "purchase"
    return "awareness" if event_type in AWARENESS else "consideration"


def build(ecom: Any, home: Path, *, mapping: str, config: str = "{}") -> duckdb.DuckDBPyConnection:
    """Replay, land and build; answers the warehouse."""
    for name, text in (("ecom.yml", mapping), ("journey.yml", config)):
        (home / name).write_text(text, encoding="utf-8")
    ecom[["user_id", "event", "timestamp", "acquisition_channel", "event_id"]].to_csv(home / "ecom.csv", index=False)
    settings = load_settings(home=home / "state", config=home / "journey.yml")
    url = f"file://{home / 'drop'}"
    report = replay([home / "ecom.csv"], home / "ecom.yml", url, settings=settings)
    assert (report.sent_count, report.rejected_count) == (31_106, 0)
    assert steps.land(SOURCE_TOPICS, url, settings)["record_count"] == 31_106
    steps.silver(settings, run_id="ecom", source=url)
    steps.gold(settings, run_id="ecom")
    return duckdb.connect(str(settings.warehouse_path), read_only=True)


def stream(peer: ModuleType, ecom: Any, column: str) -> Any:
    """The peer's stream whose events are the values of one column."""
    frame = ecom[["user_id", "timestamp"]].assign(event=ecom[column])
    return peer.Eventstream(frame, {"path_cols": ["user_id"]})


def test_a_gap_of_30_minutes_finds_the_labelled_sessions(peer: ModuleType, ecom: Any, tmp_path: Path) -> None:
    mapping = MAPPING.read_text(encoding="utf-8")
    all_on_the_web = mapping.replace("'support'", "'web'").replace("'chat_started'", "'custom'")
    con = build(ecom, tmp_path, mapping=all_on_the_web)
    ours = con.execute("select session_id::varchar, event_id::varchar from touchpoints").fetchall()
    assert con.execute("select count(*), sum(touchpoint_count) from sessions").fetchall() == [(3605, 31_106)]
    labelled = zip(ecom["session_id"], ecom["event_id"], strict=True)
    assert groups(ours) == groups(labelled)
    cut = peer.Eventstream(ecom[["user_id", "timestamp", "event", "event_id"]])
    cut = cut.split_sessions(session_col="cut", timeout="30m").df
    assert groups(ours) == groups(zip(cut["cut"], cut["event_id"], strict=True))


def groups(members: Any) -> set[frozenset[str]]:
    """Who is together with whom, whatever the groups are called."""
    found: dict[Any, set[str]] = {}
    for group, member in members:
        found.setdefault(group, set()).add(member)
    return {frozenset(group) for group in found.values()}


@pytest.fixture(scope="module")
def paths(ecom: Any, tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    mapping = MAPPING.read_text(encoding="utf-8")
    con = build(ecom, tmp_path_factory.mktemp("paths"), mapping=mapping, config=ONE_JOURNEY_PER_USER)
    assert con.execute("select status, count(*) from journeys group by status").fetchall() == [("active", 600)]
    return con


@pytest.mark.parametrize("level", ["event_type", "channel", "stage"])
def test_transitions_are_those_of_its_graph(
    peer: ModuleType, ecom: Any, paths: duckdb.DuckDBPyConnection, level: str
) -> None:
    expected = stream(peer, ecom, level)
    expected = expected if level == "event_type" else expected.collapse_events(loops=True)
    count, share, seconds = (
        {
            (names.get(source, source), names.get(target, target)): row[target]
            for source, row in expected.transition_graph_data(weight).iterrows()
            for target in row.index
        }
        for names in [{"path_start": "(start)", "path_end": "(active)"}]
        for weight in ("count", "proba_out", "time_median")
    )
    rows = paths.execute(
        "select from_value, to_value, transition_count, share, median_seconds from transitions where level = ?", [level]
    ).fetchall()
    assert {row[:2]: row[2] for row in rows} == {key: value for key, value in count.items() if value}
    for source, target, _, ours, median_seconds in rows:
        assert ours == pytest.approx(share[source, target], abs=1e-12)
        if median_seconds is not None:
            assert median_seconds == pytest.approx(seconds[source, target].total_seconds(), abs=1e-6)


@pytest.mark.parametrize("level", ["event_type", "channel", "stage"])
def test_steps_are_those_of_its_step_matrix(
    peer: ModuleType, ecom: Any, paths: duckdb.DuckDBPyConnection, level: str
) -> None:
    expected = stream(peer, ecom, level)
    expected = expected if level == "event_type" else expected.collapse_events(loops=True)
    matrix = expected.step_matrix_data(max_steps=PATH_STEP_LIMIT) * 600
    rows = paths.execute(
        "select distinct step_index, value, journey_count from path_steps where level = ?", [level]
    ).fetchall()
    assert {row[:2]: row[2] for row in rows} == {
        (step, value): round(matrix.loc[value, step])
        for step in range(1, PATH_STEP_LIMIT + 1)
        for value in matrix.index.drop(["path_start", "path_end"])
        if round(matrix.loc[value, step])
    }
    ended = dict(
        paths.execute(
            "select step_index, sum(next_count) from path_steps where level = ? and next_value = '(active)' group by 1",
            [level],
        ).fetchall()
    )
    for step in range(1, PATH_STEP_LIMIT + 1):
        assert sum(ended.get(earlier, 0) for earlier in range(1, step)) == round(matrix.loc["path_end", step])
