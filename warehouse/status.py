"""What has landed, what was built and what is published, for `journeys status`."""

from __future__ import annotations

from typing import Any

from schemas.landing import live_segments
from schemas.settings import Settings
from warehouse.database import connect
from warehouse.publish import CURRENT, MANIFEST, read_manifest


def status(settings: Settings) -> dict[str, Any]:
    """`landed` (per partition), `steps` (the newest record per step), `published` (the manifest's head or None)."""
    return {"landed": _landed(settings), "steps": _steps(settings), "published": _published(settings)}


def _landed(settings: Settings) -> list[dict[str, Any]]:
    partitions: dict[tuple[str, str, int], dict[str, Any]] = {}
    for segment in live_segments(settings.landing_dir):
        key = (segment.cluster, segment.topic, segment.partition)
        row = partitions.setdefault(
            key,
            {
                "cluster": segment.cluster,
                "topic": segment.topic,
                "partition": segment.partition,
                "landed_to": -1,
                "file_count": 0,
            },
        )
        row["landed_to"] = max(row["landed_to"], segment.end)
        row["file_count"] += 1
    return list(partitions.values())


def _steps(settings: Settings) -> list[dict[str, Any]]:
    if not settings.warehouse_path.exists():
        return []
    with connect(settings, read_only=True) as con:
        known = con.execute("select 1 from duckdb_tables() where table_name = 'run_steps'").fetchone()
        if not known:
            return []
        cursor = con.execute("""
            select step, run_id, data_as_of, finished_at, round(seconds, 2) as seconds
            from run_steps
            qualify row_number() over (partition by step order by finished_at desc) = 1
            order by finished_at""")
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _published(settings: Settings) -> dict[str, Any] | None:
    current = settings.published_dir / CURRENT
    if not (current / MANIFEST).exists():
        return None
    content = read_manifest(current)
    return {
        "run_id": content["run_id"],
        "data_as_of": content["data_as_of"],
        "path": str(current),
        "tables": {name: table["row_count"] for name, table in content["tables"].items()},
    }
