"""The consumer killed again and again while events pass: what is landed is exactly what was sent.

A real `journeys land` process is ended by SIGKILL at random instants while another process's worth of records is being
sent. Files are kept small, so that kills meet a landing in the midst of reading, writing, syncing and renaming.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from ingest.writer import Writer
from schemas.landing import live_segments
from schemas.settings import PROJECT_DIR, Settings
from schemas.topics import CHANNEL_TOPICS

pytestmark = [pytest.mark.broker]

EVENTS = 50_000


def send_slowly(url: str, settings: Settings, ids: list[str], done: threading.Event, seconds: float) -> None:
    """Send every event once, in many small steps spread over about `seconds`, so that the kills fall in between."""
    topics = list(CHANNEL_TOPICS.values())
    with Writer(url, settings) as writer:
        for number, event_id in enumerate(ids):
            value = json.dumps({"event_id": event_id, "padding": "x" * 200}).encode()
            writer.send(topics[number % len(topics)], f"customer-{number % 997}".encode(), value)
            if number % 250 == 249:
                writer.flush()
                time.sleep(seconds / (len(ids) / 250))
    done.set()


def start_landing(url: str, settings: Settings) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "JOURNEYS_HOME": str(settings.home),
        "JOURNEYS_LANDING_FILE_RECORDS": "40",
        "JOURNEYS_KAFKA_TIMEOUT_SECONDS": "30",
    }
    command = [sys.executable, "-m", "journeys", "land", "--from", url, "--follow"]
    return subprocess.Popen(command, cwd=PROJECT_DIR, env=environment, stderr=subprocess.PIPE)


def files(landing_dir: Path) -> tuple[int, int]:
    """How many landed and how many half-written files there are."""
    return len(list(landing_dir.rglob("*.parquet"))), len(list(landing_dir.rglob("*.tmp")))


def kill_while_working(url: str, settings: Settings, kills: int, seed: int) -> Counter[str]:
    """Kill `kills` landings, each at a random instant after it was seen to write its first file of this life."""
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    while seen["kills"] < kills:
        before, _ = files(settings.landing_dir)
        process = start_landing(url, settings)
        try:
            deadline = time.monotonic() + 60
            while files(settings.landing_dir)[0] == before:
                assert process.poll() is None, ((process.stderr and process.stderr.read()) or b"").decode()
                assert time.monotonic() < deadline, "the landing writes nothing"
                time.sleep(0.002)
            time.sleep(rng.random() * 0.25)
            assert process.poll() is None and psutil.Process(process.pid).is_running()
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.wait()
        landed, half = files(settings.landing_dir)
        seen["kills"] += 1
        seen["half_written"] += half > 0
        seen["files_before_kill"] += landed - before
    return seen


def prove(url: str, settings: Settings, landed: Any, kills: int, seed: int) -> dict[str, int]:
    rng = random.Random(seed)
    ids = [f"{rng.getrandbits(128):032x}" for _ in range(EVENTS)]
    done = threading.Event()
    # a life of a landing takes about 1.6 s until it writes: the sending must outlast all kills
    sender = threading.Thread(target=send_slowly, args=(url, settings, ids, done, 2.2 * kills))
    sender.start()
    seen = kill_while_working(url, settings, kills, seed)
    seen["sent_out_before_last_kill"] = int(done.is_set())
    sender.join()
    assert done.is_set(), "the sender failed"
    final = subprocess.run(
        [sys.executable, "-m", "journeys", "--home", str(settings.home), "land", "--from", url],
        cwd=PROJECT_DIR, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert final.returncode == 0, final.stderr
    rows = landed(settings)
    landed_ids = Counter(json.loads(row["value"])["event_id"] for row in rows)
    places = Counter((row["_topic"], row["_partition"], row["_offset"]) for row in rows)
    ranges = live_segments(settings.landing_dir)
    lost = len(set(ids) - landed_ids.keys())
    doubled = sum(count - 1 for count in landed_ids.values()) + sum(count - 1 for count in places.values())
    assert (lost, doubled, landed_ids.keys() - set(ids)) == (0, 0, set())
    for one, other in itertools.pairwise(ranges):
        if (one.topic, one.partition) == (other.topic, other.partition):
            assert one.end < other.start
    assert files(settings.landing_dir)[1] == 0
    return {**seen, "events": len(rows), "lost": lost, "doubled": doubled}


@pytest.mark.slow
def test_killed_ten_times_amid_fifty_thousand_events_the_landing_is_exact(kafka_url, settings, landed):
    seen = prove(kafka_url, settings, landed, kills=10, seed=20_260_105)
    assert seen["kills"] == 10 and seen["files_before_kill"] > 10
    assert not seen["sent_out_before_last_kill"], "nothing was left to send while the last landings were killed"


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_killed_forty_times_amid_fifty_thousand_events_the_landing_is_exact(kafka_url, settings, landed, figures):
    seed = random.SystemRandom().randrange(10**9)
    seen = prove(kafka_url, settings, landed, kills=40, seed=seed)
    figures(seed=seed, **seen)
    assert seen["kills"] == 40 and seen["half_written"] > 0
