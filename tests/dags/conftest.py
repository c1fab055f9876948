"""One real Airflow a module: API server, scheduler and DAG processor, with a journeys home of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from examples.local_transport import load_script


@pytest.fixture(scope="module")
def journeys_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JOURNEYS_HOME of Airflow's tasks."""
    return tmp_path_factory.mktemp("journeys")


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, journeys_home: Path) -> Iterator[Any]:
    """A running `LocalAirflow`; whatever it started must have ended, and its port be free, when it is stopped."""
    local = load_script("deploy/airflow/local.py")
    env = {"JOURNEYS_HOME": str(journeys_home), "JOURNEYS_SCHEDULE": "none"}
    with local.LocalAirflow(tmp_path_factory.mktemp("airflow"), env=env) as server:
        server.wait_for_dag()
        leaders = [process.pid for process in server._processes.values()]
        server.members = lambda: [pid for leader in leaders for pid in local._session_members(leader)]
        yield server
    deadline = time.monotonic() + 10
    while (left := server.members()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, f"Airflow left processes behind: {[psutil.Process(pid).cmdline() for pid in left]}"
    assert local._can_listen(server.port)


@pytest.fixture
def airflow_processes(airflow: Any) -> Callable[[], list[psutil.Process]]:
    """Every living process of that Airflow, its tasks included."""
    return lambda: [psutil.Process(pid) for pid in airflow.members()]
