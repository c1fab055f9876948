"""The local Airflow by its command line: what it refuses, what it keeps secret, and that nothing outlives it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from examples.local_transport import load_script
from schemas.settings import PROJECT_DIR

SCRIPT = PROJECT_DIR / "deploy" / "airflow" / "local.py"


@pytest.fixture(scope="module")
def local() -> ModuleType:
    return load_script("deploy/airflow/local.py")


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_a_taken_port_is_refused_before_anything_starts(
    local: ModuleType, taken_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert local.main(["up", "--home", str(tmp_path / "home"), "--port", str(taken_port)]) == 1
    assert capsys.readouterr().err == (
        f"error: Port {taken_port} is taken by another program. Stop it, or choose one with --port N.\n"
    )
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("arguments", [[], ["sideways"], ["run", "--conf", "{no json"], ["up", "--port", "x"]])
def test_wrong_use_is_code_2(local: ModuleType, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        local.main(arguments)
    assert ended.value.code == 2


def test_secrets_are_made_once_per_home_and_private(local: ModuleType, tmp_path: Path) -> None:
    one, again, other = (local.LocalAirflow(tmp_path / name) for name in ("a", "a", "b"))
    for server in (one, other):
        server.home.mkdir()
    assert one._secrets() == again._secrets()
    assert not set(one._secrets().values()) & set(other._secrets().values())
    assert oct((one.home / "secrets.json").stat().st_mode & 0o777) == "0o600"
    assert len(one._secrets()["jwt_secret"]) >= 64
    assert [path.name for path in one.home.iterdir()] == ["secrets.json"]


def test_its_processes_see_no_other_airflow_and_no_proxy(
    local: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", "/elsewhere")
    monkeypatch.setenv("AIRFLOW_CONFIG", "/elsewhere/airflow.cfg")
    monkeypatch.setenv("JOURNEYS_HOME", "relative")
    monkeypatch.chdir(tmp_path)
    server = local.LocalAirflow(tmp_path / "home", env={"JOURNEYS_SCHEDULE": "none"})
    server.home.mkdir()
    made = server._environment()
    assert made["AIRFLOW__CORE__DAGS_FOLDER"] == str(PROJECT_DIR / "dags")
    assert "AIRFLOW_CONFIG" not in made
    assert made["JOURNEYS_HOME"] == str(tmp_path / "relative")
    assert made["JOURNEYS_SCHEDULE"] == "none"
    assert made["AIRFLOW__API__HOST"] == made["NO_PROXY"].split(",")[0] == "127.0.0.1"
    assert {made[name].partition("///")[2] for name in made if name.endswith("SQL_ALCHEMY_CONN")} == {
        str(tmp_path / "home" / "airflow.db")
    }


@pytest.mark.scheduler
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child's life to its parent's")
def test_a_killed_caller_leaves_no_process_and_a_free_port(local: ModuleType, tmp_path: Path) -> None:
    port = local.free_port()
    command = [sys.executable, str(SCRIPT), "up", "--home", str(tmp_path / "home"), "--port", str(port)]
    environment = {**os.environ, "JOURNEYS_HOME": str(tmp_path / "journeys"), "JOURNEYS_SCHEDULE": "none"}
    caller = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert caller.stdout is not None
    lines = [caller.stdout.readline(), caller.stdout.readline()]
    assert lines[1].startswith(f"Airflow is up: http://127.0.0.1:{port}"), lines
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/api/v2/monitor/health", timeout=10) as answer:
        assert json.loads(answer.read())["scheduler"]["status"] == "healthy"

    family = psutil.Process(caller.pid).children(recursive=True)
    assert len(family) >= 3
    caller.kill()
    assert caller.wait() == -9
    deadline = time.monotonic() + 60
    while (left := [process for process in family if process.is_running()]) and time.monotonic() < deadline:
        time.sleep(0.2)
    for process in left:
        process.kill()
    assert not left, f"left behind: {left}"
    assert local._can_listen(port)
