"""The real parts that tests share: one Apache Kafka broker a session, and the figures that `make campaign` keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from filelock import FileLock

from examples.local_transport import PROJECT_DIR, load_script


@pytest.fixture(scope="session")
def broker_module() -> ModuleType:
    """`deploy/kafka/broker.py`; skips where no broker can run, and fails there under CI."""
    module = load_script("deploy/kafka/broker.py")
    if module.available_engine() is None:
        reason = f"no Kafka broker can run here: {module.missing_parts()}"
        if os.environ.get("JOURNEYS_REQUIRE_BROKER"):
            pytest.fail(f"{reason}. {module.REMEDY}")
        pytest.skip(reason)
    return module


@pytest.fixture(scope="session")
def session_broker(broker_module: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A running `Broker`, shared: tests that kill or configure one start their own from `broker_module`."""
    with broker_module.Broker(tmp_path_factory.mktemp("kafka"), tied=True) as broker:
        yield broker


@pytest.fixture
def kafka_url(session_broker: Any) -> str:
    """`kafka://host:port` of the shared broker, emptied of every topic."""
    empty_broker(session_broker.bootstrap)
    return f"kafka://{session_broker.bootstrap}"


def empty_broker(bootstrap: str) -> None:
    """Delete every topic and wait until the broker has forgotten them."""
    from kafka import KafkaAdminClient

    with KafkaAdminClient(bootstrap_servers=[bootstrap]) as admin:
        deadline = time.monotonic() + 30
        while topics := [name for name in admin.list_topics() if not name.startswith("__")]:
            assert time.monotonic() < deadline, f"topics stay: {topics}"
            admin.delete_topics(topics)
            time.sleep(0.1)


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`figures(kills=30, lost=0)`: what a test measured, kept as a line of JSON where `make campaign` asks for it."""

    def _keep(**values: Any) -> None:
        if path := os.environ.get("JOURNEYS_FIGURES"):
            with Path(path).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"test": request.node.name, **values}, default=str) + "\n")

    return _keep


@pytest.fixture(scope="session")
def demo_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JOURNEYS_HOME after `make demo`, run as a newcomer runs it, once for all workers; what it said is `said.txt`."""
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    home = shared / "demo"
    with FileLock(shared / "demo.lock"):
        if not (home / "said.txt").exists():
            environment = {**os.environ, "JOURNEYS_HOME": str(home)}
            command = [sys.executable, str(PROJECT_DIR / "examples" / "demo.py")]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
            (home / "said.txt").write_text(done.stdout)
    return home
