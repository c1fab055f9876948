"""Replaying files: literal rows in, literal touchpoints out, the same ids every time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.landing import land
from ingest.replay import replay
from ingest.row_events import REPLAY_NAMESPACE
from schemas.errors import ConfigurationError, UsageError
from schemas.settings import PROJECT_DIR, Settings
from schemas.topics import CHANNEL_TOPICS

MAPPING = """\
input: {format: csv}
touchpoints:
  - channel: "'web'"
    event_type: "'page_viewed'"
    occurred_at: ts
    identifiers: {anonymous_id: who}
"""
ENTRY = MAPPING.split("touchpoints:\n")[1]
ROWS = "ts,who\n2026-01-05 10:00:00,a\n2026-01-05 11:00:00,b\n"


@pytest.fixture
def send(tmp_path, settings):
    """`send(rows, mapping)` replays one file; answers the report and the events that reached the drop folder."""
    (tmp_path / "drop").mkdir()

    def _send(
        rows: Any, mapping: str = MAPPING, *, name: str = "rows.csv", mapping_name: str = "m.yml", **options: Any
    ):
        file = tmp_path / name
        if isinstance(rows, pa.Table):
            pq.write_table(rows, file)
        elif rows is not None:
            file.write_text(rows, encoding="utf-8")
        (tmp_path / mapping_name).write_text(mapping, encoding="utf-8")
        before = set((tmp_path / "drop").rglob("*.ndjson"))
        report = replay([file], tmp_path / mapping_name, f"file://{tmp_path}/drop", settings=settings, **options)
        added = sorted(set((tmp_path / "drop").rglob("*.ndjson")) - before)
        return report, [json.loads(line) for path in added for line in path.read_text("utf-8").splitlines()]

    return _send


def test_a_row_becomes_the_whole_touchpoint_with_every_kind_of_value(send):
    mapping = """\
input: {format: csv, delimiter: ";"}
touchpoints:
  - channel: "'store'"
    event_type: "'order_completed'"
    occurred_at: ts
    received_at: ts + interval 5 second
    event_id: uuid5('6ba7b810-9dad-11d1-80b4-00c04fd430c8', nr::varchar)
    identifiers: {customer_id: nr, loyalty_id: "[card, 'x-' || card]"}
    source: "'till'"
    medium: null
    campaign: 7
    properties: {order_id: nr, amount: price, currency: "'EUR'", city's: "'Köln'", gift: true, n: nr}
"""
    _, events = send("nr;ts;card;price\n042;2026-01-05T10:00:00.5Z;c1;9.999\n", mapping)
    assert events == [
        {
            "event_id": str(uuid5(NAMESPACE_DNS, "042")),
            "schema_version": 1,
            "channel": "store",
            "event_type": "order_completed",
            "occurred_at": "2026-01-05T10:00:00.500000Z",
            "received_at": "2026-01-05T10:00:05.500000Z",
            "identifiers": {"customer_id": "042", "loyalty_id": ["c1", "x-c1"]},
            "source": "till",
            "campaign": "7",
            "properties": {
                "order_id": "042", "amount": "10.00", "currency": "EUR", "city's": "Köln", "gift": True, "n": "042",
            },
        }
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "parquet", "ndjson"])
def test_the_three_formats_give_the_same_events(send, kind):
    files = {
        "csv": "ts,who\n2026-01-05 10:00:00,a\n",
        "ndjson": '{"ts": "2026-01-05 10:00:00", "who": "a"}\n',
        "parquet": duckdb.sql("select timestamp '2026-01-05 10:00:00' as ts, 'a' as who").to_arrow_table(),
    }
    _, events = send(files[kind], MAPPING.replace("csv", kind), name=f"rows.{kind}")
    assert [(e["occurred_at"], e["identifiers"]) for e in events] == [
        ("2026-01-05T10:00:00.000000Z", {"anonymous_id": "a"})
    ]
    payload = {
        "channel": "web", "event_type": "page_viewed", "occurred_at": "2026-01-05T10:00:00.000000Z",
        "received_at": "2026-01-05T10:00:00.000000Z", "identifiers": {"anonymous_id": "a"}, "properties": {},
    }  # fmt: skip
    text = json.dumps(payload, separators=(",", ":"))
    assert events[0]["event_id"] == str(uuid5(REPLAY_NAMESPACE, f"m\x1f0\x1f{text}\x1f1"))


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("2026-01-05 10:00:00", "2026-01-05T15:00:00"),
        ("2026-07-05 10:00:00", "2026-07-05T14:00:00"),
        ("2026-01-05T10:00:00Z", "2026-01-05T10:00:00"),
        ("2026-01-05T10:00:00.25+02:00", "2026-01-05T08:00:00.250000"),
        ("2026-01-05 10:00:00-05", "2026-01-05T15:00:00"),
        ("2026-01-05", "2026-01-05T05:00:00"),
        ("2026-03-08 01:59:59", "2026-03-08T06:59:59"),
        ("2026-03-08 02:30:00", "2026-03-08T07:30:00"),  # never was: taken an hour later
        ("2026-03-08 03:00:00", "2026-03-08T07:00:00"),
        ("2026-11-01 00:59:59", "2026-11-01T04:59:59"),
        ("2026-11-01 01:30:00", "2026-11-01T06:30:00"),  # came twice: the second one
    ],
)
@pytest.mark.parametrize("is_text", [False, True], ids=["typed", "text"])
def test_stamps_without_a_zone_belong_to_the_mappings_and_others_are_taken_as_they_are(send, stamp, expected, is_text):
    occurred_at = "concat(ts, '')" if is_text else "ts"
    mapping = MAPPING.replace("{format: csv}", "{format: parquet, timezone: America/New_York}")
    column = pa.array([stamp], pa.string())
    if is_text:
        rows = pa.table({"ts": column, "who": ["a"]})
    else:
        kind = "timestamptz" if re.search(r"(Z|[+-]\d\d(:\d\d)?)$", stamp[11:]) else "timestamp"
        rows = duckdb.sql(f"select '{stamp}'::{kind} as ts, 'a' as who").to_arrow_table()
    _, events = send(rows, mapping.replace("occurred_at: ts", f'occurred_at: "{occurred_at}"'), name="rows.parquet")
    assert events[0]["occurred_at"] == f"{expected}{'' if '.' in expected else '.000000'}Z"


def ids(events: list[dict[str, Any]]) -> list[str]:
    return sorted(event["event_id"] for event in events)


def test_the_same_file_again_is_the_same_events_and_equal_rows_are_different_ones(send):
    rows = ROWS + "2026-01-05 10:00:00,a\n"
    first = ids(send(rows)[1])
    assert len(set(first)) == 3
    assert ids(send(rows)[1]) == first
    assert ids(send(rows, name="other.csv")[1]) == first
    assert set(ids(send(ROWS)[1])) < set(first)


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        (("input:", "name: m\ninput:"), True),
        (("{anonymous_id: who}", "{anonymous_id: who, device_id: null}"), True),
        (("input:", "name: other\ninput:"), False),
        (("'page_viewed'", "'cart_viewed'"), False),
        (("touchpoints:\n", "touchpoints:\n" + ENTRY.replace("ts\n", "ts\n    where: false\n")), False),
    ],
    ids=["same name", "null key", "another name", "another value", "another place"],
)  # fmt: skip
def test_default_ids_follow_name_place_and_values(send, change, is_same):
    changed = MAPPING.replace(*change)
    assert changed != MAPPING
    assert (ids(send(ROWS)[1]) == ids(send(ROWS, changed)[1])) is is_same


def test_the_order_of_keys_in_the_mapping_changes_no_id(send):
    one, other = "properties: {b: who, a: 1}", "properties: {a: 1, b: who}"
    assert ids(send(ROWS, MAPPING + f"    {one}\n")[1]) == ids(send(ROWS, MAPPING + f"    {other}\n")[1])


def test_sums_of_doubles_give_the_same_ids_in_every_replay(send):
    rows = duckdb.sql(
        "select timestamp '2026-01-05' as ts, 'c' || (i % 5) as who, 1 / (1 + i * 0.37)::double as x "
        "from range(400000) r(i)"
    ).to_arrow_table()
    mapping = MAPPING.replace("csv", "parquet").replace(
        "  - channel",
        "  - from: select ts, who, sum(x) as total, list(x)[1:3] as some from input group by ts, who\n    channel",
    )
    mapping += "    properties: {total: total, some: some}\n"
    first = ids(send(rows, mapping, name="rows.parquet")[1])
    assert len(first) == 5
    assert all(ids(send(None, mapping, name="rows.parquet")[1]) == first for _ in range(3))


def test_a_mapping_named_after_bob_does_not_break_the_sql(send):
    assert len(send(ROWS, mapping_name="bob's.yml")[1]) == 2


def test_several_entries_and_where_make_touchpoints_in_order_of_time(send):
    second = ENTRY.replace("'page_viewed'", "'signed_in'")
    mapping = MAPPING + "    where: who <> 'b'\n" + second
    rows = "ts,who\n2026-01-05 12:00:00,c\n2026-01-05 10:00:00,a\n2026-01-05 11:00:00,b\n"
    _, events = send(rows, mapping)
    assert [(e["event_type"], e["identifiers"]["anonymous_id"]) for e in events] == [
        ("page_viewed", "a"), ("page_viewed", "c"), ("signed_in", "a"), ("signed_in", "b"), ("signed_in", "c"),
    ]  # fmt: skip


def test_rejected_rows_are_counted_with_their_reason_and_not_sent(send):
    rows = "ts,who\n2026-01-05 10:00:00,fine\n2026-01-05 11:00:00,clear@example.com\n,late\n1980-01-01 00:00:00,old\n"
    report, events = send(rows)
    assert [e["identifiers"]["anonymous_id"] for e in events] == ["fine"]
    assert (report.sent_count, report.rejected_count) == (1, 3)
    text = "\n".join(report.lines())
    assert "rejected 3 rows, nothing of them was sent:" in text
    assert "identifiers.anonymous_id.0: holds a clear e-mail address" in text
    assert "occurred_at: occurred_at before 1990-01-01 (got 1980-01-01" in text
    assert "occurred_at: Field required" in text


ORDERS = """\
input: {format: csv, timezone: Europe/Berlin}
touchpoints:
  - channel: "'store'"
    event_type: "'order_completed'"
    occurred_at: at
    identifiers: {customer_id: who}
    properties: {amount: price, currency: "'EUR'"}
"""


@pytest.mark.parametrize(
    ("bad", "field", "got"),
    [
        ("abc,bad,7.50", "occurred_at: must be RFC 3339", "abc"),
        ("2026-13-01,bad,7.50", "occurred_at: must be RFC 3339", "2026-13-01"),
        ("2026-01-05T25:00:00Z,bad,7.50", "occurred_at: ", "2026-01-05T25:00:00Z"),
        ("294247-01-10 04:00:54,bad,7.50", "occurred_at: must be RFC 3339", "294247-01-10"),
        ("2026-01-05,bad,7 EUR", "properties.amount: must be a decimal amount", "7 EUR"),
        ("2026-01-05,bad,1e30", "properties.amount: must be a decimal amount", "1e"),
        ("2026-01-05,bad,nan", "properties.amount: must be a decimal amount", "nan"),
    ],
)
def test_a_date_or_amount_that_does_not_cast_rejects_its_row_alone_and_changes_no_other_id(send, bad, field, got):
    good = "at,who,price\n2026-01-05T10:00:00+02:00,a,9.999\n2026-01-05 10:00:00,b,12\n2026-01-06,c,\n"
    expected = send(good, ORDERS)[1]
    assert [(e["occurred_at"], e["properties"].get("amount")) for e in expected] == [
        ("2026-01-05T08:00:00.000000Z", "10.00"),
        ("2026-01-05T09:00:00.000000Z", "12.00"),
        ("2026-01-05T23:00:00.000000Z", None),
    ]
    report, events = send(good + bad + "\n", ORDERS)
    assert events == expected
    assert (report.sent_count, report.rejected_count) == (3, 1)
    assert report.rejects[0].startswith(field) and f"(got {got}" in report.rejects[0]


def test_one_value_of_another_type_rejects_its_row_alone_in_typed_files_too(send):
    scores = ORDERS.replace("order_completed", "nps_submitted").replace(
        "amount: price, currency: \"'EUR'\"", "nps_score: n"
    )
    report, events = send("at,who,n\n2026-01-05,a,9\n2026-01-05,b,n/a\n2026-01-05,c,7.5\n2026-01-05,d,8.0\n", scores)
    found = {e["identifiers"]["customer_id"]: e["properties"]["nps_score"] for e in events}
    assert found == {"a": 9, "d": 8}
    assert [reject.split(" in ")[0] for reject in report.rejects] == [
        "properties.nps_score: Input should be a valid integer (got n/a)",
        "properties.nps_score: Input should be a valid integer (got 7.5)",
    ]
    opens = MAPPING.replace("'web'", "'email'").replace("page_viewed", "email_opened")
    opens += "    properties: {is_machine_open: is_machine}\n"
    report, events = send("ts,who,is_machine\n2026-01-05,a,true\n2026-01-05,b,perhaps\n", opens)
    assert [e["properties"] for e in events] == [{"is_machine_open": True}]
    assert "is_machine_open: Input should be a valid boolean (got perhaps)" in report.rejects[0]
    lines = [
        {"at": "2026-01-05T10:00:00+02:00", "who": "a", "price": 5.5},
        {"at": 17, "who": 4, "price": "5"},
        {"at": "2026-01-06", "who": "c", "price": "five"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    report, events = send(text, ORDERS.replace("csv", "ndjson"), name="rows.ndjson")
    assert [(e["occurred_at"], e["identifiers"], e["properties"]["amount"]) for e in events] == [
        ("2026-01-05T08:00:00.000000Z", {"customer_id": "a"}, "5.50")
    ]
    assert report.rejected_count == 2 and "(got 17)" in report.rejects[0] and "(got five)" in report.rejects[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ("identifiers:", 'where: "price > 0"\n    identifiers:'),
            r"where\): does not fit the data: .* VARCHAR and type INT",
        ),
        (
            ("identifiers:", 'where: "price::double > 0"\n    identifiers:'),
            r"\(touchpoints\[0\]\): the rows cannot be evaluated: .*'abc'",
        ),
        (("at: at", "at: at::timestamp"), r"\(touchpoints\[0\]\): the rows cannot be evaluated: .*\"?soon"),
        (
            ("amount: price", "amount: price::decimal"),
            r"touchpoints\[0\]\): the rows .*\"abc\".*try_cast\(…\) gives NULL",
        ),
        (
            ("occurred_at: at", "occurred_at: number"),
            r"occurred_at\): must be a time or text, not BIGINT.*got 'number'",
        ),
    ],
    ids=["a where of another type", "a cast in where", "a cast of a time", "a cast of an amount", "a number as time"],
)
def test_an_expression_of_the_users_own_that_fails_on_a_row_stops_the_replay(send, tmp_path, change, words):
    mapping = ORDERS.replace(*change)
    assert mapping != ORDERS
    with pytest.raises(ConfigurationError, match=rf"m.yml:\d+ .*{words}"):
        send("at,who,price,number\n2026-01-05,a,1.00,1\nsoon,b,2.00,2\n2026-01-05,c,abc,3\n", mapping)
    assert not list((tmp_path / "drop").rglob("*.ndjson"))


def test_replay_says_how_many_ids_had_landed_before(send, settings, tmp_path):
    assert send(ROWS)[0].landed_before_count == 0
    land(f"file://{tmp_path}/drop", settings=settings)
    report, _ = send(ROWS + "2026-01-05 12:00:00,c\n")
    assert (report.sent_count, report.landed_before_count) == (3, 2)


def test_further_tables_come_from_the_mapping_or_the_command_line(send, tmp_path):
    (tmp_path / "names.csv").write_text("who,full\na,Anna\n")
    (tmp_path / "colours.ndjson").write_text('{"who": "a", "colour": "red"}\n')
    mapping = MAPPING.replace("touchpoints:", "tables: {names: names.csv}\ntouchpoints:").replace(
        "  - channel",
        "  - from: select input.ts, names.full || '-' || colours.colour as who from input join names using (who) "
        "join colours using (who)\n    channel",
    )
    _, events = send(ROWS, mapping, tables={"colours": tmp_path / "colours.ndjson"})
    assert [e["identifiers"]["anonymous_id"] for e in events] == ["Anna-red"]


@pytest.mark.parametrize(
    ("rows", "mapping", "options", "error", "words"),
    [
        (None, MAPPING, {}, UsageError, "there is no such file.*rows.csv"),
        (ROWS, MAPPING, {"tables": {"x": Path("/no/file.csv")}}, UsageError, "there is no such file.*/no/file.csv"),
        (ROWS, MAPPING, {"tables": {'x"y': Path("/no/file.csv")}}, UsageError, "not a name for a further table"),
        (ROWS, MAPPING, {"tables": {"input": Path("/no/file.csv")}}, UsageError, "not a name for a further table"),
        (ROWS, MAPPING.replace("csv", "parquet"), {}, ConfigurationError, "rows.csv: the file cannot be read as parq"),
        (ROWS, MAPPING.replace("csv", "ndjson"), {}, ConfigurationError, "rows.csv: the file cannot be read as ndj"),
        (
            ROWS, MAPPING.replace("anonymous_id: who", "anonymous_id: who::integer"), {}, ConfigurationError,
            r"m.yml:3 \(touchpoints\[0\].*rows cannot be evaluated: .*'a'.*Correct the expression",
        ),
    ],
    ids=["file", "table", "table name", "table named input", "not parquet", "not json", "failing cast"],
)  # fmt: skip
def test_what_cannot_be_replayed_is_said_and_nothing_is_sent(send, tmp_path, rows, mapping, options, error, words):
    with pytest.raises(error, match=words):
        send(rows, mapping, **options)
    assert not list((tmp_path / "drop").rglob("*.ndjson"))


def test_a_query_without_end_is_stopped_at_the_time_limit(send, monkeypatch):
    monkeypatch.setattr("ingest.row_events.TIME_LIMIT_SECONDS", 0.3)
    counting = "select 1 as i, ts from input union all select i + 1, ts from t"
    endless = f"with recursive t as ({counting}) select ts, 'a' as who from t"
    mapping = MAPPING.replace("  - channel", f"  - from: {endless}\n    channel")
    with pytest.raises(ConfigurationError, match=r"took longer than 0.3 s.*simplify `from`"):
        send(ROWS, mapping)


def code_blocks() -> dict[str, str]:
    page = (PROJECT_DIR / "docs/mappings.md").read_text(encoding="utf-8")
    return dict(re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)```", page, re.DOTALL))


def test_the_pages_examples_run_as_written(tmp_path):
    page = (PROJECT_DIR / "docs/mappings.md").read_text(encoding="utf-8")
    for name, content in code_blocks().items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    drop = tmp_path / "drop"
    drop.mkdir()

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "journeys", "-v", "--home", str(tmp_path / "home"), "replay", *arguments]
        done = subprocess.run(
            [*command, "--to", f"file://{drop}"], cwd=PROJECT_DIR, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert re.search(r"INFO ingest.progress: sending \w+.csv: 2 in", done.stderr), done.stderr
        return done.stdout

    output = run(str(tmp_path / "visits.csv"), "--mapping", str(tmp_path / "visits.yml"))
    assert output in page
    (visits,) = (drop / CHANNEL_TOPICS["web"]).glob("*.ndjson")
    assert [json.loads(line)["properties"]["page_path"] for line in visits.read_text().splitlines()] == ["/", "/sale"]

    run(str(tmp_path / "till.csv"), "--mapping", str(tmp_path / "till.yml"))
    (orders,) = (drop / CHANNEL_TOPICS["store"]).glob("*.ndjson")
    shown = [line for line in page.splitlines() if line.startswith('{"event_id"')]
    assert [re.sub(r'"event_id":"[^"]*"', '"event_id":"…"', line) for line in orders.read_text().splitlines()] == shown


ZONED = MAPPING.replace("{format: csv}", "{format: csv, timezone: America/New_York}")


@pytest.mark.parametrize("shape", ["csv of one kind", "csv with text", "ndjson", "parquet"])
@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("2026-01-05 10:00:00 UTC", "2026-01-05T10:00:00"),
        ("2026-01-05T10:00:00.5 utc", "2026-01-05T10:00:00.500000"),
        ("2026-01-05 10:00 UTC ", "2026-01-05T10:00:00"),
        ("2026-01-05 10:00:00 GMT", "2026-01-05T10:00:00"),
        ("2026-01-05 10:00:00 CET", "2026-01-05T09:00:00"),
        ("2026-01-05 10:00:00 EST", "2026-01-05T15:00:00"),
        ("2026-07-05 10:00:00 Europe/Berlin", "2026-07-05T08:00:00"),
        ("2026-01-05 10:00:00 America/Argentina/Buenos_Aires", "2026-01-05T13:00:00"),
        ("2026-01-05 10:00:00+05:30:15", "2026-01-05T04:29:45"),
        ("2026-01-05 10:00:00 +02:00", "2026-01-05T08:00:00"),
        ("2026-01-05T10:00:00Z ", "2026-01-05T10:00:00"),
        ("2026-01-05T10:00:00z", "2026-01-05T10:00:00"),
        ("2026-01-05 10:00:00 BST", None),  # Britain's or Bangladesh's
        ("2026-01-05 10:00:00 CEST", None),
        ("2026-01-05 10:00:00 Mars/Olympus", None),
        ("2026-01-05 10:00:00 PM", None),
        ("2026-01-05 10:00:00-5", None),
    ],
)
def test_a_named_zone_is_kept_in_every_format_and_what_is_none_rejects_its_row(send, stamp, expected, shape):
    others = ["soon"] if shape == "csv with text" else []
    kind = shape.split()[0]
    rows = {
        "csv": "ts,who\n" + "".join(f"{text},a\n" for text in (stamp, *others)),
        "ndjson": json.dumps({"ts": stamp, "who": "a"}) + "\n",
        "parquet": pa.table({"ts": [stamp], "who": ["a"]}),
    }[kind]
    report, events = send(rows, ZONED.replace("csv", kind), name=f"rows.{kind}")
    if expected is None:
        assert events == [] and f"(got {stamp}) in" in report.rejects[0] and "occurred_at" in report.rejects[0]
    else:
        assert [e["occurred_at"] for e in events] == [f"{expected}{'' if '.' in expected else '.000000'}Z"]


def test_stamps_of_utc_and_without_a_zone_may_stand_in_one_csv_column(send):
    _, events = send("ts,who\n2026-01-05 10:00:00 UTC,a\n2026-01-05 10:00:00,b\n", ZONED)
    assert {e["identifiers"]["anonymous_id"]: e["occurred_at"][11:19] for e in events} == {
        "a": "10:00:00", "b": "15:00:00",
    }  # fmt: skip


def test_a_csv_column_whose_format_says_am_or_pm_is_read_as_before(send):
    _, events = send("ts,who\n01/05/2026 10:00:00 PM,a\n", ZONED)
    assert [e["occurred_at"] for e in events] == ["2026-01-06T03:00:00.000000Z"]


def test_the_zone_of_a_further_tables_stamps_is_kept_too(send, tmp_path):
    (tmp_path / "times.csv").write_text("ts\n2026-01-05 10:00:00 UTC\n", encoding="utf-8")
    mapping = ZONED.replace("  - channel", "  - from: select times.ts, input.who from input, times\n    channel")
    _, events = send("who\na\n", mapping, tables={"times": tmp_path / "times.csv"})
    assert [e["occurred_at"] for e in events] == ["2026-01-05T10:00:00.000000Z"]


@pytest.mark.parametrize("kind", ["csv", "parquet", "ndjson"])
@pytest.mark.parametrize(("name", "other"), [("v[1]", "v1"), ("v?", "vx"), ("v*", "vxx")])
def test_a_file_whose_name_looks_like_a_pattern_is_read_and_no_other(send, tmp_path, name, other, kind):
    def rows(who: str) -> Any:
        return {
            "csv": f"ts,who\n2026-01-05 10:00:00,{who}\n",
            "ndjson": json.dumps({"ts": "2026-01-05 10:00:00", "who": who}) + "\n",
            "parquet": pa.table({"ts": ["2026-01-05 10:00:00"], "who": [who]}),
        }[kind]

    mapping = MAPPING.replace("csv", kind)
    send(rows("other"), mapping, name=f"{other}.{kind}")
    _, events = send(rows("meant"), mapping, name=f"{name}.{kind}")
    assert [e["identifiers"] for e in events] == [{"anonymous_id": "meant"}]


def test_ids_that_had_landed_are_counted_where_the_home_looks_like_a_pattern(send, tmp_path):
    send(ROWS)
    odd = Settings(home=tmp_path / "home[1]")
    land(f"file://{tmp_path}/drop", settings=odd)
    for path in (tmp_path / "home[1]").rglob("*.parquet"):  # the files that the pattern would match
        other = tmp_path / "home1" / path.relative_to(tmp_path / "home[1]")
        other.parent.mkdir(parents=True)
        pq.write_table(pq.read_table(path, partitioning=None).slice(0, 0), other)
    report = replay([tmp_path / "rows.csv"], tmp_path / "m.yml", f"file://{tmp_path}/drop", settings=odd)
    assert report.landed_before_count == 2


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        ("' '", {"customer_id": "c"}),
        ("''", {"customer_id": "c"}),
        ("chr(9) || chr(160)", {"customer_id": "c"}),
        ("' a '", {"anonymous_id": " a ", "customer_id": "c"}),
        ("['a', ' ', '']", {"anonymous_id": ["a"], "customer_id": "c"}),
    ],
    ids=["space", "empty", "tab and no-break space", "within spaces", "in a list"],
)
def test_a_blank_identifier_is_left_out(send, who, expected):
    with duckdb.connect() as con:
        rows = con.sql(f"select '2026-01-05 10:00:00' as ts, {who} as who").to_arrow_table()
    mapping = MAPPING.replace("csv", "parquet").replace(
        "{anonymous_id: who}", "{anonymous_id: who, customer_id: \"'c'\"}"
    )
    _, events = send(rows, mapping, name="rows.parquet")
    assert [e["identifiers"] for e in events] == [expected]
