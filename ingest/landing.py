"""Landing: raw records from Kafka or a drop folder into the landed files, which are the truth of the pipeline.

Offsets live in the landed files: a landing goes on after the greatest landed offset and overwrites nothing, so one
that is killed at any instant loses and doubles nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from ingest.segments import LandedRange, merge_ranges
from ingest.sources import FolderSource, open_source
from schemas.errors import LandingError, UnlandedError
from schemas.settings import Settings
from schemas.topics import SOURCE_TOPICS

__all__ = ["LandedRange", "land"]

logger = logging.getLogger(__name__)


def land(
    url: str,
    *,
    settings: Settings,
    topics: Sequence[str] | None = SOURCE_TOPICS,
    follow: bool = False,
    stop: threading.Event | None = None,
    accept_loss: bool = False,
) -> list[LandedRange]:
    """Land what is new at `url` and return what was added, one range per log.

    A bounded drain takes the end offsets first, reads to them and returns; with `follow` it goes on until `stop` is
    set. `topics` None means all of them (on a drop folder also the files in its root); dead letters are never read.
    `accept_loss` records expired offsets as lost instead of refusing. Topics that do not exist are empty.

    Raises ConfigurationError (URL, settings), BrokerError (unreachable within `settings.kafka_timeout_seconds`),
    LandingError (another landing holds the topic, a landed file is broken) and UnlandedError when the source
    contradicts what was landed (expired, recreated or deleted topic, shrunken file): then everything else has been
    landed before it is raised.
    """
    started_at = time.monotonic()
    stop = stop or threading.Event()
    source = open_source(url, settings)
    if isinstance(source, FolderSource):
        from ingest.drop_folder import FolderLanding

        folder = FolderLanding(source, settings, topics)
        ranges, problems = folder.run(follow=follow, stop=stop), folder.problems
    else:
        from ingest.kafka_reader import KafkaLanding

        kafka = KafkaLanding(source, settings, topics, accept_loss=accept_loss)
        ranges, problems = kafka.run(follow=follow, stop=stop), kafka.problems
    merged = merge_ranges(ranges)
    count = sum(item.record_count for item in merged)
    seconds = time.monotonic() - started_at
    logger.info("landed %d records of %d logs in %.1f s", count, len(merged), seconds)
    if problems:
        error = _combined(problems)
        error.problems, error.record_count = tuple(map(str, problems)), count
        raise error
    return merged


def _combined(problems: Sequence[LandingError]) -> UnlandedError:
    if len(problems) == 1:
        first = problems[0]
        return UnlandedError(first.what, where=first.where, value=first.value, remedy=first.remedy)
    return UnlandedError(
        f"{len(problems)} logs could not be landed (all others were): " + " | ".join(map(str, problems))
    )
