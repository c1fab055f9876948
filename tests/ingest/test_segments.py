"""Landed files: closed ranges in order, limits kept, nothing replaced, other writers kept out."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.segments import BATCH_SCHEMA, LandedRange, Log, SegmentWriter, exclusive, merge_ranges, newest_segments
from schemas.errors import LandingError
from schemas.settings import PROJECT_DIR

LOG = Log("c", "t", 0)


def batch(*offsets: int, size: int = 1) -> pa.RecordBatch:
    stamp = datetime(2026, 1, 5, tzinfo=UTC)
    rows = [{"_offset": o, "kafka_at": stamp, "value": b"x" * size, "landed_at": stamp} for o in offsets]
    return pa.RecordBatch.from_pylist(rows, schema=BATCH_SCHEMA)


def spans(writer: SegmentWriter) -> list[tuple[int, int, int]]:
    return [(r.start, r.end, r.record_count) for r in writer.ranges]


def test_a_file_is_closed_at_its_number_of_records_and_the_rest_at_the_flush(tmp_path):
    with SegmentWriter(tmp_path, max_records=2, max_bytes=10**9) as writer:
        for offset in range(5):
            writer.add(LOG, batch(offset), through=offset)
        assert newest_segments(tmp_path, "c", "t")[0].end in (1, 3)
        writer.flush()
        assert spans(writer) == [(0, 1, 2), (2, 3, 2), (4, 4, 1)]


def test_over_the_byte_limit_the_fattest_log_is_written_first(tmp_path):
    thin = Log("c", "t", 1)
    with SegmentWriter(tmp_path, max_records=1000, max_bytes=3000) as writer:
        writer.add(thin, batch(0), through=0)
        writer.add(LOG, batch(0, size=2500), through=0)
        writer.add(LOG, batch(1, size=2500), through=1)
        writer.flush()
        assert [(r.partition, r.start, r.end) for r in writer.ranges] == [(0, 0, 1), (1, 0, 0)]


def test_a_range_may_hold_offsets_without_a_record_and_notes_go_to_the_footer(tmp_path):
    with SegmentWriter(tmp_path, max_records=10, max_bytes=10**9) as writer:
        writer.add(LOG, batch(3, 5), through=5, notes={"topic_id": "T"})
        assert writer.close_file(LOG, through=8)
        assert not writer.close_file(LOG, through=9)
        writer.mark_empty(LOG, 9, 11, {"topic_id": "T"})
        writer.flush()
        assert spans(writer) == [(3, 8, 2), (9, 11, 0)]
    path = newest_segments(tmp_path, "c", "t")[0].path(tmp_path)
    assert path.name == "00000000000000000009-00000000000000000011.parquet"
    assert pq.read_metadata(path).metadata[b"journeys.topic_id"] == b"T"


def test_a_landed_file_is_never_replaced(tmp_path):
    with SegmentWriter(tmp_path, max_records=1, max_bytes=10**9) as writer:
        writer.add(LOG, batch(0), through=0)
    path = newest_segments(tmp_path, "c", "t")[0].path(tmp_path)
    content = path.read_bytes()
    with pytest.raises(LandingError, match="exists already"), SegmentWriter(tmp_path, max_records=1, max_bytes=1) as w:
        w.add(LOG, batch(0, size=500), through=0)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("error", "is_written"), [(RuntimeError, True), (KeyboardInterrupt, False)], ids=["failure", "interrupt"]
)
def test_what_was_read_before_a_failure_is_kept_and_an_interrupt_writes_no_more(tmp_path, error, is_written):
    with pytest.raises(error), SegmentWriter(tmp_path, max_records=10, max_bytes=10**9) as writer:
        writer.add(LOG, batch(0), through=0)
        raise error
    assert bool(newest_segments(tmp_path, "c", "t")) is is_written


def test_another_process_is_kept_out_until_the_lock_is_let_go(tmp_path):
    script = f"""
import sys; sys.path.insert(0, {str(PROJECT_DIR)!r})
from pathlib import Path
from ingest.segments import exclusive
with exclusive(Path({str(tmp_path)!r}), "c", "t", 1):
    print("locked", flush=True); sys.stdin.readline()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        with (
            pytest.raises(LandingError, match=r"t: another process is landing this topic"),
            exclusive(tmp_path, "c", "t", 0),
        ):
            pass
        with exclusive(tmp_path, "c", "another topic", 0):
            pass
        other.communicate("\n")
    with exclusive(tmp_path, "c", "t", 0):
        pass


def test_names_of_cluster_and_topic_cannot_leave_the_landing_folder(tmp_path: Path):
    with SegmentWriter(tmp_path, max_records=1, max_bytes=1) as writer:
        writer.add(Log("../../c", "a/b=ü", 0), batch(0), through=0)
    (path,) = tmp_path.rglob("*.parquet")
    assert path.parent.parent.parent == tmp_path / "cluster=..%2F..%2Fc"
    assert newest_segments(tmp_path, "../../c", "a/b=ü")[0].topic == "a/b=ü"


def test_ranges_of_one_log_are_told_as_one():
    parts = [LandedRange("c", "t", 0, 5, 9, 4), LandedRange("c", "t", 0, 0, 4, 5), LandedRange("c", "t", 1, 0, 0, 1)]
    assert merge_ranges(parts) == [LandedRange("c", "t", 0, 0, 9, 9), LandedRange("c", "t", 1, 0, 0, 1)]
