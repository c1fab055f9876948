"""The landing contract: what a landed record looks like and where it lies.

Landing is the truth of the pipeline: everything after it is a pure function of these files. It is written by
`ingest` and read by `transforms`, so the layout lives here.

    landing/cluster=<cluster>/topic=<topic>/partition=<n>/<start>-<end>.parquet

`start` and `end` are the first and last offset in the file (inclusive, zero-padded to 20 digits), so that a
listing sorts by offset and a replay can never write over another range. Cluster and topic are percent-encoded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow as pa

LANDING_SCHEMA = pa.schema(
    [
        pa.field("_cluster", pa.string(), nullable=False),
        pa.field("_topic", pa.string(), nullable=False),
        pa.field("_partition", pa.int32(), nullable=False),
        pa.field("_offset", pa.int64(), nullable=False),
        pa.field("kafka_at", pa.timestamp("us", tz="UTC")),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))),
        pa.field("landed_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
"""Grain: one record of one partition. `value` is the raw payload, NULL for a tombstone; nothing is parsed."""


@dataclass(frozen=True, order=True)
class Segment:
    """One landed file: a closed range of offsets of one partition."""

    cluster: str
    topic: str
    partition: int
    start: int
    end: int

    def path(self, landing_dir: Path) -> Path:
        """Where this segment lies under `landing_dir`."""
        return partition_dir(landing_dir, self.cluster, self.topic, self.partition) / (
            f"{self.start:020d}-{self.end:020d}.parquet"
        )


def partition_dir(landing_dir: Path, cluster: str, topic: str, partition: int) -> Path:
    """The folder that holds one partition's segments."""
    return (
        landing_dir / f"cluster={quote(cluster, safe='')}" / f"topic={quote(topic, safe='')}" / f"partition={partition}"
    )


def parse_segment(path: Path) -> Segment | None:
    """The segment a path stands for; None for temporary and foreign files."""
    start, dash, end = path.stem.partition("-")
    names = [part.partition("=") for part in path.parts[-4:-1]]
    if path.suffix != ".parquet" or not (dash and start.isdigit() and end.isdigit()):
        return None
    if [name for name, _, _ in names] != ["cluster", "topic", "partition"] or not names[2][2].isdigit():
        return None
    return Segment(unquote(names[0][2]), unquote(names[1][2]), int(names[2][2]), int(start), int(end))


def list_segments(landing_dir: Path) -> Iterator[Segment]:
    """Every landed segment, contained ones included, in no particular order."""
    for path in landing_dir.glob("cluster=*/topic=*/partition=*/*.parquet"):
        if (segment := parse_segment(path)) is not None:
            yield segment


def live_segments(landing_dir: Path) -> list[Segment]:
    """The segments to read, in (cluster, topic, partition, start) order.

    A file whose range lies inside another's (a compaction killed between writing the new file and deleting the
    old ones) is left out, so that no offset is read twice.
    """
    by_partition: dict[tuple[str, str, int], list[Segment]] = defaultdict(list)
    for segment in list_segments(landing_dir):
        by_partition[segment.cluster, segment.topic, segment.partition].append(segment)
    live: list[Segment] = []
    for segments in by_partition.values():
        covered_to = -1
        for segment in sorted(segments, key=lambda s: (s.start, -s.end)):
            if segment.end > covered_to:
                live.append(segment)
                covered_to = segment.end
    return sorted(live)
