"""Mapping files: each mistake is named with file, line, key, value and remedy; nothing reaches outside the input."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ingest.mapping import load_mapping, parse_mapping
from ingest.replay import replay
from schemas.errors import ConfigurationError
from schemas.expressions import AGGREGATE_FUNCTIONS, MAPPING_FUNCTIONS
from schemas.settings import PROJECT_DIR

GOOD = """\
input: {format: csv}
touchpoints:
  - channel: "'web'"
    event_type: "'page_viewed'"
    occurred_at: ts
    identifiers: {anonymous_id: cookie}
"""


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("input: {format: csv}", "input: {format: xlsx}"), 1, "input.format: .*'csv'.*got 'xlsx'.*docs/mappings.md"),
        (("{format: csv}", "{format: csv, timezone: Mars}"), 1, "input.timezone: .*IANA time zone.*got 'Mars'"),
        (("{format: csv}", "{format: csv, quote: x}"), 1, "input.quote: Extra inputs"),
        (('    event_type: "\'page_viewed\'"\n', ""), 3, "touchpoints.0.event_type: Field required"),
        (("occurred_at: ts", "occured_at: ts"), 5, "occured_at: Extra inputs"),
        (("occurred_at: ts", "occurred_at: [1, 2]"), 5, "occurred_at: Input should be a valid string"),
        (("{anonymous_id: cookie}", "{cookie_id: cookie}"), 6, "unknown identifier type.*'cookie_id'.*customer_id"),
        (("    occurred_at: ts\n", "    occurred_at: ts\n   - x: [\n"), 6, "not valid YAML"),
        ((GOOD.split("touchpoints:")[1], " []\n"), 2, "touchpoints: Tuple should have at least 1 item"),
        ((GOOD, "- 1\n"), None, "file: .*valid dictionary"),
        ((GOOD, ""), None, "file: "),
        (("occurred_at: ts", "occurred_at: ts\n    occurred_at: n"), 6, "key stands twice, first on line 5.*'occurred"),
        (("{anonymous_id: cookie}", "{device_id: a, device_id: b}"), 6, "key stands twice.*'device_id'"),
        (("format: csv", "format: csv, timezone: localtime"), 1, "input.timezone: .*IANA time zone"),
        (("input:", "name: It's\ninput:"), 1, "name: String should match pattern.*got \"It's\""),
    ],
    ids=["format", "zone", "input key", "missing", "misspelt", "list", "identifier", "yaml", "empty list", "list file",
         "empty file", "repeated key", "repeated identifier", "local time", "name"],
)  # fmt: skip
def test_a_broken_mapping_is_named_with_file_line_key_value_and_remedy(tmp_path, change, line, words):
    path = tmp_path / "m.yml"
    text = GOOD.replace(*change)
    assert text != GOOD
    with pytest.raises(ConfigurationError) as raised:
        parse_mapping(text, path)
    assert re.search(words, str(raised.value)), str(raised.value)
    assert str(raised.value).startswith(f"{path}: " if line is None else f"{path}:{line}: "), str(raised.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["missing", "not text"])
def test_a_mapping_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "m.yml"
    if content:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"{path}: the mapping cannot be read.*--mapping"):
        load_mapping(path)


@pytest.fixture
def refusal(tmp_path, settings):
    """The message with which a mapping is refused; fails when it is not, or when anything was sent."""

    def _refusal(mapping: str) -> str:
        (tmp_path / "in.csv").write_text("ts,cookie,n\n2026-01-05 10:00:00,ck,1\n")
        (tmp_path / "secret.csv").write_text("word\nxyzzy\n")
        (tmp_path / "m.yml").write_text(mapping.replace("SECRET", str(tmp_path / "secret.csv")))
        (tmp_path / "drop").mkdir()
        with pytest.raises(ConfigurationError) as raised:
            replay([tmp_path / "in.csv"], tmp_path / "m.yml", f"file://{tmp_path}/drop", settings=settings)
        assert "xyzzy" not in str(raised.value) and not list((tmp_path / "drop").rglob("*.ndjson"))
        assert re.match(rf"{re.escape(str(tmp_path))}/m.yml:\d+ \(touchpoints\[0\]", str(raised.value)), raised.value
        return str(raised.value)

    return _refusal


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("now()", "function 'now' is not allowed.*docs/mappings.md lists them"),
        ("current_timestamp", "not allowed|unknown column"),
        ("current_date", "not allowed|unknown column"),
        ("localtimestamp", "not allowed|unknown column"),
        ("random()", "not allowed"),
        ("gen_random_uuid()", "not allowed"),
        ("getenv('HOME')", "not allowed"),
        ("current_setting('home_directory')", "not allowed"),
        ("read_text('SECRET')", "not allowed"),
        ("(select word from 'SECRET')", "not allowed here"),
        ("(select max(cookie) from input)", "not allowed here"),
        ("row_number() over ()", "not allowed here"),
        ("max(cookie)", "not allowed"),
        ("missing", r"unknown column 'missing'.*Known columns: cookie, n, ts"),
        ("cookie; drop table input", "exactly one expression|not valid SQL"),
        ("cookie, n", "exactly one expression"),
        ("cookie from input", "only an expression"),
        ("cookie ||", "not valid SQL"),
        ("$1", "not allowed here"),
        ("cookie.x.y", "unknown column|does not fit the data"),
        ("substr(n, cookie)", "does not fit the data.*Columns: ts, cookie, n"),
    ],
)
def test_an_expression_that_reads_outside_the_row_or_changes_between_runs_is_refused(refusal, expression, words):
    message = refusal(GOOD.replace("anonymous_id: cookie", f'anonymous_id: "{expression}"'))
    assert re.search(words, message) and ":6 (touchpoints[0].identifiers.anonymous_id)" in message, message


@pytest.mark.parametrize(
    ("select", "words"),
    [
        ("select * from 'SECRET'", "unknown table"),
        ('select * from ""SECRET""', "unknown table"),
        ("select * from read_csv('SECRET')", "unknown table|not allowed"),
        ("select * from other", "unknown table 'other'.*Loaded tables: input"),
        ("select * from duckdb_settings()", "unknown table|not allowed"),
        ("select * from information_schema.tables", "unknown table"),
        ("select *, now() as at from input", "'now' is not allowed|not allowed"),
        ("select *, random() as r from input", "not allowed"),
        ("select *, row_number() over () as r from input", "window is not allowed"),
        ("select * from input tablesample 50%", "tablesample is not allowed"),
        ("select * from input using sample 1 rows", "tablesample is not allowed"),
        ("select * from input; select 1", "exactly one SELECT"),
        ("copy input to 'SECRET'", "exactly one SELECT"),
        ("attach 'SECRET' as x", "exactly one SELECT"),
        ("set threads = 4", "exactly one SELECT"),
        ("select nothing from input", "the SELECT does not fit the data"),
        ("select * from", "not valid SQL"),
    ],
)
def test_a_from_that_reads_other_tables_or_changes_between_runs_is_refused(refusal, select, words):
    message = refusal(GOOD.replace("  - channel", f'  - from: "{select}"\n    channel').replace('""', '\\"'))
    assert re.search(words, message) and "(touchpoints[0].from)" in message, message


def test_external_access_is_off_even_where_the_check_of_tables_is_deceived(refusal):
    """A common table expression that is out of scope makes the file's name known to the check; DuckDB refuses it."""
    select = 'select (with \\"SECRET\\" as (select 1 as a) select max(a) from \\"SECRET\\") as x, * from \\"SECRET\\"'
    message = refusal(GOOD.replace("  - channel", f'  - from: "{select}"\n    channel'))
    assert "the SELECT does not fit the data" in message
    assert re.search(r"disabled|does not exist|Permission", message), message


def test_the_page_lists_exactly_the_functions_that_are_allowed():
    page = (PROJECT_DIR / "docs/mappings.md").read_text(encoding="utf-8")

    def listed(name: str) -> set[str]:
        return set(re.findall(r"`(\w+)`", page.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]))

    assert listed("scalar") == MAPPING_FUNCTIONS
    assert listed("aggregate") == AGGREGATE_FUNCTIONS


@pytest.mark.parametrize("path", sorted(PROJECT_DIR.glob("examples/**/*.yml")), ids=lambda path: path.name)
def test_the_shipped_mappings_are_valid(path: Path):
    if path.name != "journey.yml":
        assert load_mapping(path).content.touchpoints
