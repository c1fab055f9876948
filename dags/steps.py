"""The steps of a night as plain functions: the DAG and `journeys night` call the same ones.

Answers are JSON, so that a scheduler can keep and show them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from schemas.errors import UnlandedError
from schemas.settings import Settings

logger = logging.getLogger(__name__)


def land(topics: Sequence[str], source: str, settings: Settings) -> dict[str, Any]:
    """Land topics to their end offsets; answers topics, record_count and problems.

    `problems` says what the source no longer has as it was landed. The night goes on without it, because one broken
    log must not keep the others' news back; `confirm_landing` tells at its end.
    """
    from ingest.landing import land as run

    found: tuple[str, ...] = ()
    try:
        count = sum(part.record_count for part in run(source, settings=settings, topics=topics))
    except UnlandedError as error:
        count, found = error.record_count, error.problems
        for problem in found:
            logger.error("%s", problem)
    return {"topics": list(topics), "record_count": count, "problems": list(found)}


def problems(landed: Iterable[dict[str, Any]]) -> list[str]:
    """What could not be landed, of the answers of `land`."""
    return [problem for item in landed for problem in item["problems"]]


def confirm_landing(landed: Iterable[dict[str, Any]]) -> None:
    """Raise UnlandedError when something could not be landed: the night is published, and somebody must look."""
    if found := problems(landed):
        raise UnlandedError(
            " | ".join(found), where="landing", remedy="All other logs were landed, built and published"
        )


def silver(
    settings: Settings,
    *,
    run_id: str,
    source: str,
    data_as_of: datetime | None = None,
    full: bool = False,
    landing_problem_count: int | None = None,
) -> dict[str, Any]:
    """Bronze to customers; rejected records go to the dead-letter topic of `source`."""
    from ingest.dead_letters import forward
    from warehouse import night

    result = night.build_silver(
        settings, run_id=run_id, data_as_of=data_as_of, full=full, landing_problem_count=landing_problem_count
    )
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
