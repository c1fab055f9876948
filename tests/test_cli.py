"""The command line: exit codes, one line per error, JSON for machines, and a night with every kind of bad record."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest

import journeys
from ingest.scenario.run import generate

BIN = Path(sys.executable).with_name("journeys")


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Answer]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """`journeys …` in this process, by `main`: its errors and exit codes included."""
    for name in [name for name in os.environ if name.startswith("JOURNEYS_")]:
        monkeypatch.delenv(name)

    def _cli(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["journeys", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            journeys.main()
        code = ended.value.code
        return Answer(code if isinstance(code, int) else 0, *capsys.readouterr())

    return _cli


GOOD: dict[str, Any] = json.loads(
    next(r.value for r in generate(seed=9, customers=2, days=5).records if r.value and b'"page_viewed"' in r.value)
)


def bad(**changes: Any) -> bytes:
    return json.dumps({**GOOD, "event_id": "00000000-0000-4000-8000-000000000000", **changes}).encode()


BAD_RECORDS: dict[bytes, tuple[str, str | None]] = {  # each with the start of its reason, and its field
    b'{"event_id": "cut off': ("invalid JSON: ", None),
    b"": ("empty record", None),
    b"\xff\xfe no text": ("invalid UTF-8 at byte 0", None),
    b"[1, 2, 3]": ("a record must be one JSON object", None),
    bad(event_type="teleported"): ("unknown event_type", "event_type"),
    bad(schema_version=9): ("Input should be 1", "schema_version"),
    bad(occurred_at="yesterday"): ("must be RFC 3339 with a zone", "occurred_at"),
    bad(occurred_at=17): ("must be an RFC 3339 string", "occurred_at"),
    bad(received_at=None): ("must be an RFC 3339 string", "received_at"),
    bad(channel="fax"): ("Input should be 'web'", "channel"),
    bad(colour="red"): ("Extra inputs are not permitted", "colour"),
    bad(identifiers={"customer_id": "clear@example.com"}): ("holds a clear e-mail", "identifiers.customer_id.0"),
    bad(properties={"note": "nul \x00 byte"}): ("NUL character in a string", None),
    bad(properties={"blob": "x" * 1_000_000}): ("record larger than 524288 bytes", None),
}


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """Home and drop folder after one `journeys night --json` over good and bad records, and its answer."""
    folder = tmp_path_factory.mktemp("cli")
    home, drop = folder / "home", folder / "drop"
    records = generate(seed=4, customers=15, days=30).records
    for channel in ("web", "email", "store", "support"):
        topic = f"journeys.{channel}.v1"
        lines = [record.value or b"" for record in records if record.topic == topic]
        (drop / topic).mkdir(parents=True)
        (drop / topic / "good.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    (drop / "journeys.web.v1" / "bad.ndjson").write_bytes(b"\n".join(BAD_RECORDS) + b"\n")
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        arguments = ["--home", str(home), "night", "--from", f"file://{drop}", "--run-id", "first", "--json"]
        patch.setattr(sys, "argv", ["journeys", *arguments])
        with pytest.raises(SystemExit) as ended:
            journeys.main()
    assert ended.value.code in (0, None)
    return home, drop, json.loads(said.getvalue())


def test_a_night_keeps_every_bad_record_with_its_reason_and_publishes_the_rest(night: Any) -> None:
    home, drop, answer = night
    assert [step["step"] for step in answer["steps"]] == ["silver", "gold", "publish"]
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        found = con.execute(
            "select _offset, reason, field, raw from quarantine where _topic like '%bad.ndjson' order by _offset"
        ).fetchall()
    for (offset, reason, field, raw), (number, (sent, (start, place))) in zip(
        found, enumerate(BAD_RECORDS.items()), strict=True
    ):
        assert (offset, bytes(raw), field, reason[: len(start)]) == (number, sent, place, start)
    letters = [
        json.loads(line)
        for file in (drop / "journeys.dead_letter.v1").glob("*.ndjson")
        for line in file.read_text().splitlines()
    ]
    assert {int(line["offset"]) for line in letters if "bad.ndjson" in line["topic"]} == set(range(len(BAD_RECORDS)))
    assert answer["steps"][0]["dead_letter_count"] == len(letters)
    manifest = json.loads((home / "published" / "current" / "manifest.json").read_text())
    assert manifest["run_id"] == "first"
    assert manifest["tables"]["touchpoints"]["row_count"] > 300


@pytest.mark.parametrize(
    "command",
    [
        ("status", "--json"),
        ("check", "--json"),
        ("land", "--from", "{url}", "--json"),
        ("publish", "--run-id", "first", "--json"),
        ("replay-rejected", "--json"),
    ],
    ids=lambda command: command[0],
)
def test_json_answers_parse_and_nothing_else_is_printed(cli: Cli, night: Any, command: tuple[str, ...]) -> None:
    home, drop, _ = night
    answer = cli("--home", home, *(part.format(url=f"file://{drop}") for part in command))
    assert (answer.code, answer.err) == (0, "")
    assert json.loads(answer.out) is not None


def test_the_same_commands_answer_people_in_words(cli: Cli, night: Any) -> None:
    home, drop, _ = night
    assert cli("--home", home, "land", "--from", f"file://{drop}").out == "landed 0 records\n"
    assert cli("--home", home, "publish", "--run-id", "first").out == "publish: done already\n"
    assert cli("--home", home, "replay-rejected").out.startswith("0 records accepted, ")
    shown = cli("--home", home, "status").out
    assert "journeys.web.v1/bad.ndjson" in shown
    assert "run first, data as of " in shown
    assert "quarantined_ratio" in cli("--home", home, "check").out
    table = cli("--home", home, "query", "select stage from stage_conversion where stage_index = 2 limit 1").out
    assert table.split() == ["stage", "─" * 13, "consideration"]
    assert "consideration" in cli("--home", home, "query", "select 'consideration' as a", "--format", "csv").out


def one_line_error(answer: Answer) -> str:
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    return answer.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\nsession_timeouts: {web: soon}\n", r"journey.yml:3: session_timeouts.web: "),
        ("a: [\n", r"journey.yml:2: not valid YAML"),
        (
            'stage_rules:\n  - {stage: purchase, when: "true"}\n  - {stage: awareness, when: "colour = 1"}\n',
            r"journey.yml:3 (stage_rules: awareness): ",
        ),
        (
            "friction:\n  - signal: spy\n    when: \"exists (select 1 from read_csv('/etc/passwd'))\"\n",
            "journey.yml:3 (friction: spy): ",
        ),
        ("conversion: \"read_text('/etc/passwd') is not null\"\n", "journey.yml:1 (conversion): "),
        ('exclude:\n  - {name: late, when: "occurred_at > now()"}\n', "journey.yml:2 (exclude: late): "),
    ],
    ids=["a value", "no YAML", "a column that is not there", "a file in a subquery", "a file", "the wall clock"],
)
def test_a_broken_journey_yml_is_told_by_line_and_rule(cli: Cli, tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "journey.yml"
    config.write_text(text)
    answer = cli("--home", tmp_path / "home", "--config", config, "build")
    assert answer.code == 2
    assert message in one_line_error(answer)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("--config {tmp}/none.yml build", 2, "none.yml: cannot be read"),
        ("night --as-of 0001-01-01T00:00:00+14:00", 2, "outside the years 1 to 9999"),
        ("produce --start 9999-12-30 --days 5", 2, "past the year 9999"),
        ("query 'select 1'", 2, "nothing is published yet"),
        ("query 'select 1' --format parquet", 2, "parquet needs a file"),
        ("publish", 1, "no gold was built yet. Run `journeys build` first"),
        (
            "build --as-of yesterday",
            2,
            "--as-of is not an instant (got 'yesterday'). Write it like 2026-03-01T00:00:00Z",
        ),
        ("night --from file://{tmp}/drop --run-id ../x", 2, "not a run id (got '../x')"),
        ("land --from ftp://somewhere", 2, "ftp://somewhere"),
        ("land --from kafka://", 2, "kafka://"),
        (
            "land --from file://{tmp}/drop --topic nope --topic there",
            2,
            "/drop: no such topic (got 'nope'). Check the name; to wait for a topic that does not exist yet, use --fol",
        ),
        ("produce --start soon --to file://{tmp}/drop", 2, "--start is not a day (got 'soon')"),
        ("replay {tmp}/none.csv --mapping {tmp}/none.yml --to file://{tmp}/drop", 2, "none.yml"),
        ("replay {tmp}/a.csv --mapping {tmp}/a.yml --table stores", 2, "--table needs NAME=FILE (got 'stores')"),
    ],
)
def test_every_mistake_has_its_code_and_one_line(
    cli: Cli, tmp_path: Path, command: str, code: int, message: str
) -> None:
    (tmp_path / "drop" / "there").mkdir(parents=True)
    answer = cli("--home", tmp_path / "home", *shlex.split(command.format(tmp=tmp_path)))
    assert message in one_line_error(answer)
    assert answer.code == code


def test_a_topic_of_the_default_list_may_be_missing_and_a_following_landing_waits_for_one_by_name(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    source = ("--home", tmp_path / "home", "land", "--from", f"file://{tmp_path}")
    assert cli(*source) == cli(*source, "--topic", "there") == (0, "landed 0 records\n", "")
    with subprocess.Popen(
        [BIN, *source, "--topic", "later", "--follow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as following:
        assert following.stderr is not None
        assert following.stderr.readline() == f"warning: file://{tmp_path}: no topic later yet; waiting for it\n"
        (tmp_path / "later").mkdir()
        (tmp_path / "later" / "a.ndjson").write_bytes(b"1\n")
        deadline = time.monotonic() + 30
        while not list((tmp_path / "home").rglob("*.parquet")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        following.terminate()
        out, _ = following.communicate()
    assert (following.returncode, out.splitlines()[-1]) == (0, "landed 1 records")


@pytest.mark.broker
def test_a_topic_asked_for_by_name_that_the_broker_does_not_have_is_told(
    cli: Cli, tmp_path: Path, kafka_url: str
) -> None:
    answer = cli("--home", tmp_path, "land", "--from", kafka_url, "--topic", "nope")
    assert answer.code == 2
    assert f"{kafka_url}: no such topic (got 'nope')" in one_line_error(answer)
    assert cli("--home", tmp_path, "land", "--from", kafka_url) == (0, "landed 0 records\n", "")


def test_wrong_use_that_the_parser_sees_is_code_2(cli: Cli) -> None:
    for arguments in (
        ["nosuch"],
        ["land", "--nosuch"],
        ["produce", "--days", "0"],
        ["query"],
        ["query", "x", "--format", "x"],
    ):
        answer = cli(*arguments)
        assert (answer.code, answer.out) == (2, "")
        assert "Usage: journeys" in answer.err
    assert cli("--help").code == 0


def test_a_setting_that_is_wrong_names_its_variable(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNEYS_KAFKA_PARTITIONS", "none")
    answer = cli("status")
    assert answer.code == 2
    assert "setting JOURNEYS_KAFKA_PARTITIONS" in one_line_error(answer)


def test_a_variable_that_is_no_setting_is_told_once_and_nothing_fails(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNEYS_HOEM", "/srv/journeys")
    monkeypatch.setenv("JOURNEYS_XYZ", "1")
    answer = cli("--home", tmp_path, "status", "--json")
    assert (answer.code, json.loads(answer.out)["published"]) == (0, None)
    assert answer.err.splitlines() == [
        "warning: JOURNEYS_HOEM is no setting and is ignored; did you mean JOURNEYS_HOME?",
        "warning: JOURNEYS_XYZ is no setting and is ignored; docs/reference/settings.md lists them all",
    ]


def test_an_unreachable_broker_is_one_line_within_its_time(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNEYS_KAFKA_TIMEOUT_SECONDS", "0.3")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    for command in (("land", "--from"), ("night", "--from"), ("produce", "--customers", "1", "--days", "1", "--to")):
        answer = cli("--home", tmp_path, *command, f"kafka://{address}")
        assert answer.code == 1
        assert address in one_line_error(answer)


@pytest.mark.slow
def test_a_failed_gate_is_code_1_and_check_says_so(cli: Cli, night: Any, tmp_path: Path) -> None:
    home, drop, _ = night
    config = tmp_path / "journey.yml"
    config.write_text("quality:\n  quarantined_ratio: {fail: 0.0}\n")
    common = ("--home", tmp_path / "home", "--config", config)
    answer = cli(*common, "night", "--from", f"file://{drop}")
    assert answer.code == 1
    assert "table quarantine: check quarantined_ratio did not hold: expected at most 0 (got 0." in answer.err
    assert answer.err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "home" / "published").exists()
    told = cli(*common, "check")
    assert told.code == 1
    assert told.out.splitlines()[3].split()[:4] == ["false", "fail", "quarantine", "quarantined_ratio"]
    assert cli("--home", home, "check").code == 0


def test_a_night_goes_on_without_what_cannot_be_landed_and_ends_saying_so(cli: Cli, night: Any, tmp_path: Path) -> None:
    _, drop, _ = night
    mine = tmp_path / "drop"
    shutil.copytree(drop, mine)
    for name in ("cut.parquet", "torn.parquet"):
        (mine / "journeys.web.v1" / name).write_bytes(b"PAR1 and no more")
    common = ("--home", tmp_path / "home", "night", "--from", f"file://{mine}")
    answer = cli(*common)
    assert answer.code == 1
    last = answer.err.splitlines()[-1]
    assert "cut.parquet" in last and "torn.parquet" in last and "All other logs were landed, built" in last
    manifest = json.loads((tmp_path / "home" / "published" / "current" / "manifest.json").read_text())
    assert manifest["tables"]["touchpoints"]["row_count"] > 300
    sql = "select table_name, severity, observed, passed from data_quality where check_name = 'landing_problem_count'"
    assert cli("--home", tmp_path / "home", "query", sql, "--format", "csv").out.splitlines()[1:] == [
        "landing,warn,2.0,False"
    ]

    strict = tmp_path / "journey.yml"
    strict.write_text("quality:\n  landing_problem_count: {fail: 0}\n")
    stopped = cli("--config", strict, *common, "--run-id", "strict")
    assert stopped.code == 1 and "landing_problem_count did not hold" in stopped.err
    assert json.loads((tmp_path / "home" / "published" / "current" / "manifest.json").read_text()) == manifest
    for name in ("cut.parquet", "torn.parquet"):
        (mine / "journeys.web.v1" / name).unlink()
    mended = cli("--config", strict, *common, "--run-id", "strict")
    assert mended.code == 0, mended.err


def test_the_installed_command_runs_from_anywhere(tmp_path: Path, night: Any) -> None:
    home, _, _ = night
    done = subprocess.run(
        [
            BIN,
            "--home",
            os.path.relpath(home, tmp_path),
            "query",
            "select count(*) as n from touchpoints",
            "--format",
            "csv",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[0] == "n"
    assert int(done.stdout.splitlines()[1]) > 300
    assert done.stderr == ""
