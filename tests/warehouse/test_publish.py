"""Publications: whole, atomic, described, private where they must be, and never in the way of anything else."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import GateFailedError, PublishError, UsageError
from schemas.settings import PROJECT_DIR
from warehouse import publish
from warehouse.models import load_models, load_silver
from warehouse.night import publish_run
from warehouse.status import status

READER = """
import json, sys, duckdb, pathlib, pyarrow.parquet as pq
current, stop, rounds, runs = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), 0, set()
print("ready", flush=True)
while not stop.exists() or not rounds:
    folder = current.resolve(strict=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["run_id"] == folder.name, (manifest["run_id"], folder)
    with duckdb.connect(str(folder / "journeys.duckdb"), read_only=True) as con:
        for name, table in manifest["tables"].items():
            in_files = sum(pq.read_metadata(folder / item["path"]).num_rows for item in table["files"])
            in_view = con.execute(f"select count(*) from {name}").fetchone()[0]
            assert in_files == in_view == table["row_count"], (folder, name, in_files, in_view)
            if name in ("retention", "stage_conversion"):
                assert con.execute(f"select distinct _run_id from {name}").fetchall() == [("r1",)]
    rounds += 1
    runs.add(folder.name)
print(json.dumps([rounds, sorted(runs)]))
"""


@pytest.mark.slow
def test_a_reader_sees_whole_runs_only_while_ten_are_published(built: Any, tmp_path: Path) -> None:
    built.publish("night-0")
    stop = tmp_path / "stop"
    settings = built.with_settings(publish_keep=4)
    command = [sys.executable, "-c", READER, str(built.current), str(stop)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        for number in range(1, 11):
            publish_run(settings, run_id=f"night-{number}")
        stop.touch()
        out, errors = reader.communicate(timeout=60)
    assert reader.returncode == 0, errors
    rounds, runs = json.loads(out)
    assert rounds > 2
    assert set(runs) <= {f"night-{number}" for number in range(11)}
    kept = sorted(path.name for path in settings.published_dir.iterdir())
    assert kept == ["current", "night-10", "night-7", "night-8", "night-9"]


def test_the_manifest_says_what_is_published(shared: Any) -> None:
    manifest = shared.manifest()
    promised = {model.name: model.description for model in [*load_silver(PROJECT_DIR / "sql")]}
    promised |= {m.name: m.description for m in load_models(PROJECT_DIR / "sql") if m.is_published}
    assert set(manifest["tables"]) == (set(promised) - {"quarantine", "identity_map"}) | {"data_quality"}
    assert manifest["run_id"] == "r1"
    assert datetime.fromisoformat(manifest["data_as_of"]).utcoffset() is not None
    assert len(manifest["definition_hash"]) == 16
    for name, table in manifest["tables"].items():
        names = [column["name"] for column in table["columns"]]
        if name != "data_quality":
            assert names[: len(promised[name].columns)] == [column.name for column in promised[name].columns]
        files = [shared.current / item["path"] for item in table["files"]]
        assert table["row_count"] == sum(pq.read_metadata(file).num_rows for file in files)
        assert sorted(files) == sorted((shared.current / name).rglob("*.parquet"))
        for file, item in zip(files, table["files"], strict=True):
            assert (item["bytes"], item["rows"]) == (file.stat().st_size, pq.read_metadata(file).num_rows)
            assert item["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_parquet_has_zoned_times_exact_money_days_and_meanings(shared: Any) -> None:
    schema = pq.read_schema(shared.current / "orders" / "orders.parquet")
    assert schema.field("ordered_at").type == pa.timestamp("us", tz="UTC")
    assert schema.field("amount").type == schema.field("refund_amount").type == pa.decimal128(18, 2)
    assert schema.field("order_index").type in (pa.int64(), pa.int32())
    conversion = pq.read_schema(shared.current / "stage_conversion" / "stage_conversion.parquet")
    assert conversion.field("period_start_date").type == pa.date32()
    assert conversion.field("conversion_ratio").type == pa.float64()
    assert conversion.field("entered_count").type == pa.int64()
    described = json.loads(schema.metadata[b"journeys"])
    assert described["description"]
    assert set(described["columns"]) == set(schema.names)
    assert all(described["columns"].values())


def test_touchpoints_are_parted_by_month_and_carry_typed_properties_only(shared: Any) -> None:
    months = sorted(path.name for path in (shared.current / "touchpoints").iterdir())
    assert months == ["month=2026-01", "month=2026-02"]
    typed = set(publish.TYPED_PROPERTIES)
    for month in months:
        table = pq.read_table(shared.current / "touchpoints" / month / "touchpoints.parquet", partitioning=None)
        assert {f"month={at:%Y-%m}" for at in table["occurred_at"].to_pylist()} == {month}
        keys = {key for text in table["properties"].to_pylist() if text for key in json.loads(text)}
        assert keys
        assert keys <= typed


def test_private_tables_and_identifiers_are_in_no_published_file(shared: Any) -> None:
    names = {path.name for path in shared.current.resolve().rglob("*")}
    assert not names & {"quarantine", "identity_map"}
    columns = {name for file in shared.current.resolve().rglob("*.parquet") for name in pq.read_schema(file).names}
    assert not columns & {"identifier", "identifiers", "raw", "value_excerpt"}


@pytest.mark.slow
def test_unchanged_files_are_hard_links_and_gold_carries_its_run(built: Any) -> None:
    built.publish()
    built.night("r2")
    one, two = (built.settings.published_dir / run for run in ("r1", "r2"))
    for table in ("touchpoints/month=2026-01/touchpoints", "customers/customers", "journeys/journeys"):
        assert (one / f"{table}.parquet").samefile(two / f"{table}.parquet")
    assert not (one / "retention/retention.parquet").samefile(two / "retention/retention.parquet")


def test_the_published_database_opens_anywhere_read_only_with_meanings(shared: Any, tmp_path: Path) -> None:
    ask = """
import sys, duckdb
con = duckdb.connect(sys.argv[1], read_only=True)
print(con.execute("select count(*) from orders").fetchone()[0])
print(con.execute("select comment from duckdb_views() where view_name = 'orders'").fetchone()[0])
bare = "select count(*) from duckdb_columns() where table_name = 'orders' and comment is null"
print(con.execute(bare).fetchone()[0])
try:
    con.execute("create table x (a int)")
except duckdb.Error as error:
    print(type(error).__name__)
"""
    file = shared.current / "journeys.duckdb"
    done = subprocess.run([sys.executable, "-c", ask, file], cwd=tmp_path, capture_output=True, text=True, check=True)
    count, comment, without, refused = done.stdout.splitlines()
    assert int(count) == shared.manifest()["tables"]["orders"]["row_count"] > 0
    assert len(comment) > 10
    assert (without, refused) == ("0", "InvalidInputException")


def test_landing_and_warehouse_are_private_and_publications_are_not(shared: Any) -> None:
    def mode(path: Path) -> str:
        return oct(path.stat().st_mode & 0o777)

    home = shared.settings.home
    assert mode(shared.settings.landing_dir) == "0o700"
    assert mode(shared.settings.warehouse_path) == mode(next((home / "quality").iterdir())) == "0o600"
    published = [shared.settings.published_dir, *shared.current.resolve().rglob("*")]
    assert {mode(path) for path in published if path.is_dir()} == {"0o755"}
    assert {mode(path) for path in published if path.is_file()} == {"0o644"}
    assert mode(home) == "0o755"  # readers pass it


def test_a_publish_group_reads_and_others_do_not(built: Any, tmp_path: Path) -> None:
    import grp

    group = grp.getgrgid(os.getgid()).gr_name
    settings = built.with_settings(publish_group=group, published=tmp_path / "deep" / "er" / "published")
    publish_run(settings, run_id="r1")
    folder = (settings.published_dir / "current").resolve()
    assert {oct(path.stat().st_mode & 0o777) for path in folder.rglob("*")} == {"0o750", "0o640"}
    assert {path.stat().st_gid for path in folder.rglob("*")} == {os.getgid()}
    # Folders made on the way let readers pass, though the process that writes the warehouse is private.
    assert oct((tmp_path / "deep").stat().st_mode & 0o777) == "0o755"
    with pytest.raises(PublishError, match="no_such_group"):
        publish_run(built.with_settings(publish_group="no_such_group"), run_id="r2")


def test_leftovers_of_a_kill_go_and_what_is_not_ours_stays(built: Any) -> None:
    published = built.settings.published_dir
    for name in (".half.tmp", "renamed"):
        (published / name / "orders").mkdir(parents=True)
        (published / name / publish.UNFINISHED).touch()
    (published / ".r1.tmp").mkdir()  # killed before it could be marked
    (published / ".current.tmp").symlink_to("nowhere")
    (published / "somebody" / "else").mkdir(parents=True)
    (published / "website").mkdir()
    (published / "website" / "manifest.json").write_text("{}")
    settings = built.with_settings(publish_keep=1)
    for run in ("r1", "r2"):
        publish_run(settings, run_id=run)
    assert {path.name for path in published.iterdir()} == {"current", "r2", "somebody", "website"}


def test_no_touchpoint_replaces_touchpoints_unless_somebody_deletes_the_link(built: Any) -> None:
    built.publish()
    before = built.tables()
    built.build("r2", data_as_of=datetime(1999, 1, 1, tzinfo=UTC), full=True)
    count = built.manifest()["tables"]["touchpoints"]["row_count"]
    with pytest.raises(
        GateFailedError,
        match=rf"published/current: the build holds no touchpoint, the current publication {count:,} "
        r"\(got 'data as of 1999-01-01T00:00:00\+00:00'\)\. .*delete this link and publish again",
    ):
        built.publish("r2")
    assert built.tables() == before
    built.current.unlink()
    built.publish("r2")
    assert built.manifest()["tables"]["touchpoints"]["row_count"] == 0
    built.publish("r3")  # nothing replaces nothing
    assert built.manifest()["run_id"] == "r3"


def test_a_root_for_readers_is_the_path_of_the_views(built: Any, tmp_path: Path) -> None:
    built.publish()
    root = tmp_path / "mounted" / "journeys"
    publish_run(built.settings, run_id="r2", root=root)
    assert not root.parent.exists()
    with duckdb.connect(str(built.current.resolve() / "journeys.duckdb"), read_only=True) as con:
        with pytest.raises(duckdb.Error, match=str(root)):
            con.execute("from orders")
        root.parent.mkdir()
        root.symlink_to(built.settings.published_dir)
        count = con.execute("select count(*) from orders").fetchone()
    assert count == (built.manifest()["tables"]["orders"]["row_count"],)
    with pytest.raises(UsageError, match=r"^--root: .* must be an absolute path \(got 'mounted/journeys'\)"):
        publish_run(built.settings, run_id="r3", root=Path("mounted/journeys"))
    assert built.manifest()["run_id"] == "r2"
    assert not (built.settings.published_dir / "r3").exists()


@pytest.mark.slow
def test_a_full_disk_is_a_publish_error_and_readers_keep_the_last(built: Any) -> None:
    """A process whose files may not grow past 8 KB meets what a full disk is: a write that fails."""
    built.publish()
    before = built.tables()
    command = [Path(sys.executable).with_name("journeys"), "--home", built.settings.home, "--config", built.config]
    done = subprocess.run(
        [*command, "publish", "--run-id", "r2"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)),
    )
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*could not be written: .*readers keep the last publication\n", done.stderr)
    assert built.tables() == before
    assert {path.name for path in built.settings.published_dir.iterdir()} == {"current", "r1"}


def test_a_folder_that_cannot_be_made_is_a_publish_error(built: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match="folder cannot be made"):
        publish_run(built.with_settings(published=tmp_path / "file" / "published"), run_id="r1")


def test_a_root_needs_nothing_on_this_machine_and_leaves_nothing_in_the_database(built: Any, tmp_path: Path) -> None:
    locked, other = tmp_path / "locked", tmp_path / "other [1]"
    locked.mkdir(mode=0o500)
    (other / "r0").mkdir(parents=True)  # somebody's copy of an earlier run
    for number, root in enumerate((locked / "bi2" / "published", other, Path("/proc/bi2/published"))):
        publish_run(built.settings, run_id=f"r{number}x", root=root)
        file = built.current.resolve() / "journeys.duckdb"
        with duckdb.connect(str(file), read_only=True) as con:
            functions = con.execute("select function_name from duckdb_functions() where not internal").fetchall()
            assert ("read_parquet",) not in functions
            views = con.execute("select sql from duckdb_views() where not internal").fetchall()
            assert views
            escaped = str(root).replace("[", "[[]")
            assert all(f"read_parquet(list_value('{escaped}/r{number}x/" in row[0] for row in views)
            columns = con.execute("select column_name, data_type from duckdb_columns() where table_name = 'orders'")
            kinds = [{"name": name, "type": kind} for name, kind in columns.fetchall()]
            assert kinds == built.manifest()["tables"]["orders"]["columns"]
    assert list(locked.iterdir()) == []
    shutil.copytree(built.settings.published_dir / "r1x", other / "r1x")
    with duckdb.connect(str(other / "r1x" / "journeys.duckdb"), read_only=True) as con:
        for table, content in built.manifest()["tables"].items():
            assert con.execute(f"select count(*) from {table}").fetchone() == (content["row_count"],)


@pytest.mark.parametrize("mode", [0o1777, 0o700, 0o775])
def test_a_folder_that_was_there_keeps_its_mode(built: Any, tmp_path: Path, mode: int) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    foreign.chmod(mode)
    for run in ("r1", "r2"):
        publish_run(built.with_settings(published=foreign), run_id=run)
        assert oct(foreign.stat().st_mode & 0o7777) == oct(mode)


def test_a_folder_that_we_made_follows_the_group(built: Any, tmp_path: Path) -> None:
    import grp

    made = tmp_path / "made"
    group = grp.getgrgid(os.getgid()).gr_name
    for run, name, mode in (("r1", None, "0o755"), ("r2", group, "0o750"), ("r3", None, "0o755")):
        publish_run(built.with_settings(published=made, publish_group=name), run_id=run)
        assert oct(made.stat().st_mode & 0o777) == mode


@pytest.mark.parametrize("name", [".", "..", "landing", "landing/published", "link", "quality"])
def test_publications_lie_apart_from_private_files(built: Any, name: str) -> None:
    home = built.settings.home
    (home / "link").symlink_to(home / "landing")
    before = {path: path.stat().st_mode for path in home.rglob("*")}
    with pytest.raises(UsageError, match=r"^JOURNEYS_PUBLISHED: publications would lie among private files"):
        publish_run(built.with_settings(published=home / name), run_id="r1")
    assert {path: path.stat().st_mode for path in home.rglob("*") if ".duckdb_tmp" not in str(path)} == {
        path: mode for path, mode in before.items() if ".duckdb_tmp" not in str(path)
    }


@pytest.mark.parametrize("text", ["{", "[]", '{"run_id": "r1"}'])
def test_status_tells_of_a_manifest_that_cannot_be_read(built: Any, text: str) -> None:
    built.publish()
    (built.current / "manifest.json").write_text(text)
    with pytest.raises(PublishError, match=r"manifest\.json: the publication cannot be read.*journeys publish"):
        status(built.settings)
