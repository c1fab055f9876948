"""The steps of a night as plain functions: the DAG and `journeys night` call the same ones.

Answers are JSON, so that a scheduler can keep and show them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from schemas.settings import Settings


def land(topic: str, source: str, settings: Settings) -> dict[str, Any]:
    """Land one topic to its end offsets; answers topic and record_count."""
    from ingest.landing import land as run

    ranges = run(source, settings=settings, topics=[topic])
    return {"topic": topic, "record_count": sum(part.record_count for part in ranges)}


def silver(
    settings: Settings, *, run_id: str, source: str, data_as_of: datetime | None = None, full: bool = False
) -> dict[str, Any]:
    """Bronze to customers; rejected records go to the dead-letter topic of `source`."""
    from ingest.dead_letters import forward
    from warehouse import night

    result = night.build_silver(settings, run_id=run_id, data_as_of=data_as_of, full=full)
    forwarded = 0
    for rows in night.unforwarded_rejects(settings):
        forwarded += forward(source, rows, settings)
        night.mark_forwarded(settings, rows)
    return {**result.as_json(), "dead_letter_count": forwarded}


def gold(settings: Settings, *, run_id: str) -> dict[str, Any]:
    """Every model, then the gates; raises GateFailedError before anything is published."""
    from warehouse import night

    return night.build_gold(settings, run_id=run_id).as_json()


def publish(settings: Settings, *, run_id: str) -> dict[str, Any]:
    """Swap in a new publication."""
    from warehouse import night

    return night.publish_run(settings, run_id=run_id).as_json()
