"""`journeys replay`: the rows of files become touchpoints, by a mapping, and are sent like any other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from ingest.mapping import INPUT, load_mapping
from ingest.progress import Tracker, no_progress
from ingest.row_events import evaluate
from ingest.writer import Writer
from schemas.errors import UsageError
from schemas.events import Rejection, parse_event, record_key
from schemas.landing import live_segments
from schemas.paths import literal_path
from schemas.settings import Settings
from schemas.topics import CHANNEL_TOPICS

SHOWN_REJECTS = 10
TABLE_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass
class ReplayReport:
    """What became of the rows: events sent, rows rejected (with the first reasons), ids that had landed before."""

    sent_count: int = 0
    rejected_count: int = 0
    landed_before_count: int = 0
    rejects: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The report for `--json`."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report for people."""
        lines = [f"sent {self.sent_count:,} touchpoints; {self.landed_before_count:,} of their ids had landed before"]
        if self.rejected_count:
            lines.append(f"rejected {self.rejected_count:,} rows, nothing of them was sent:")
            lines += [f"  {reject}" for reject in self.rejects]
        return lines


def replay(
    files: Sequence[Path],
    mapping_path: Path,
    url: str,
    *,
    settings: Settings,
    tables: Mapping[str, Path] | None = None,
    progress: Tracker[str] = no_progress,
) -> ReplayReport:
    """Send the rows of each file to `url` as touchpoints, in order of time within a file.

    Raises UsageError for a missing file, ConfigurationError for a mapping or file that cannot be used (nothing of that
    file has been sent; files before it may have), BrokerError for a record that is not delivered. Rows that make no
    valid event are counted and reported, the others are sent. `progress` sees the events on their way.
    """
    mapping = load_mapping(mapping_path)
    further = {**mapping.table_paths(), **(tables or {})}
    for name in further:
        if not TABLE_NAME.fullmatch(name) or name == INPUT:
            raise UsageError("not a name for a further table", value=name, remedy="Use lower-case letters, 0-9 and _")
    for path in (*files, *further.values()):
        if not path.is_file():
            raise UsageError("there is no such file", value=str(path), remedy="Check the path")
    report = ReplayReport()
    landed = _LandedIds(settings)
    with Writer(url, settings, name=f"replay-{mapping.name}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}") as writer:
        for file in files:
            events = evaluate(file, mapping, settings=settings, tables=further)
            for text in progress(events, None, f"sending {file.name}"):
                _send(text, writer, report, landed)
        writer.flush()
    report.landed_before_count = landed.count()
    return report


def _send(text: str, writer: Writer, report: ReplayReport, landed: _LandedIds) -> None:
    event = parse_event(text.encode())
    if isinstance(event, Rejection):
        report.rejected_count += 1
        if len(report.rejects) < SHOWN_REJECTS:
            report.rejects.append(
                f"{event.field or 'event'}: {event.reason} (got {event.value_excerpt}) in {text[:300]}"
            )
        return
    landed.add(str(event.event_id))
    writer.send(CHANNEL_TOPICS[event.channel], record_key(event), text.encode())
    report.sent_count += 1


class _LandedIds:
    """Counts which of the ids sent had landed before the replay began."""

    def __init__(self, settings: Settings) -> None:
        landing_dir = settings.landing_dir
        self._files = [literal_path(segment.path(landing_dir)) for segment in live_segments(landing_dir)]
        self._ids: list[str] = []

    def add(self, event_id: str) -> None:
        """Remember an id that is being sent."""
        if self._files:
            self._ids.append(event_id)

    def count(self) -> int:
        """How many of them stand in the files that had landed."""
        if not self._files:
            return 0
        import pyarrow as pa

        with duckdb.connect() as con:
            con.register("sent", pa.table({"event_id": pa.array(self._ids, pa.string())}))
            row = con.execute(
                """
                with landed as (
                    select try(json_extract_string(try(decode(value)), '$.event_id')) as event_id
                    from read_parquet(?, hive_partitioning = false)
                )
                select count(distinct event_id) from sent semi join landed using (event_id)""",
                [self._files],
            ).fetchone()
        return int(row[0]) if row else 0
