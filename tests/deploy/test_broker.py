"""The broker script: start, status and stop by hand; a crash keeps the data; no process is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from ingest.landing import land
from ingest.writer import Writer
from schemas.settings import PROJECT_DIR, Settings

SCRIPT = PROJECT_DIR / "deploy/kafka/broker.py"


class Shell:
    """The script run for one folder, as a user would."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

    def run(self, command: str, port: int | None = None, **environment: str) -> tuple[int, str, str]:
        arguments = [sys.executable, str(SCRIPT), command, "--dir", str(self.folder)]
        if port is not None:
            arguments += ["--port", str(port)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, env={**os.environ, **environment})
        return done.returncode, done.stdout, done.stderr

    def processes(self) -> list[int]:
        """Every process that works in the folder."""
        return [p.pid for p in psutil.process_iter() if str(self.folder) in " ".join(cmdline(p))]


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture
def shell(broker_module, tmp_path) -> Iterator[Shell]:
    shell = Shell(tmp_path / "kafka", broker_module.free_port())
    yield shell
    shell.run("stop")
    assert shell.processes() == []


@pytest.mark.broker
@pytest.mark.slow
def test_by_hand_start_status_crash_restart_and_stop(shell, tmp_path):
    settings = Settings(home=tmp_path / "home", kafka_timeout_seconds=10)
    url = f"kafka://127.0.0.1:{shell.port}"
    assert shell.run("status") == (1, "Kafka does not run.\n", "")
    code, output, _ = shell.run("start", shell.port)
    assert code == 0 and output.startswith(f"Kafka answers on 127.0.0.1:{shell.port}; log: ")
    pids = shell.processes()
    assert len(pids) == 1
    assert shell.run("start", shell.port)[0] == 0 and shell.processes() == pids  # it already runs
    # without --port it still says where it really is
    assert shell.run("status") == (0, f"Kafka runs on 127.0.0.1:{shell.port}.\n", "")
    with Writer(url, settings) as writer:
        writer.send("journeys.web.v1", b"k", b"before the crash")

    os.kill(pids[0], signal.SIGKILL)
    deadline = time.monotonic() + 10
    while shell.processes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert shell.run("status")[0] == 1
    assert shell.run("start", shell.port)[0] == 0
    land(url, settings=settings)
    (path,) = settings.landing_dir.rglob("*.parquet")
    assert pq.read_table(path)["value"].to_pylist() == [b"before the crash"]

    assert shell.run("stop") == (0, "Kafka is stopped; its data are kept.\n", "")
    assert shell.processes() == [] and shell.run("status")[0] == 1
    assert shell.run("stop")[0] == 0  # nothing to stop is no failure


@pytest.mark.broker
def test_a_taken_port_is_said_and_nothing_is_started(shell):
    with socket.socket() as other:
        other.bind(("127.0.0.1", shell.port))
        other.listen()
        code, output, error = shell.run("start", shell.port)
    assert (code, output) == (1, "")
    assert error == f"Port {shell.port} is taken by another program. Stop it, or pass --port N.\n"
    assert shell.processes() == [] and not shell.folder.exists()


@pytest.mark.broker
def test_a_broker_that_gives_up_says_why_with_the_end_of_its_log(broker_module, tmp_path):
    if broker_module.available_engine() != "java":
        pytest.skip("server.properties are set for the Java engine only")
    broker = broker_module.Broker(tmp_path / "kafka", overrides={"log.retention.ms": "not a number"}, tied=True)
    with pytest.raises(broker_module.BrokerFailedError, match=r"(?s)Kafka (could not|ended).*log.retention.ms"):
        broker.start()
    assert not broker.is_running() and Shell(tmp_path / "kafka", 1).processes() == []


def test_with_neither_docker_nor_java_it_says_what_to_install_and_exits_with_3(tmp_path):
    empty = tmp_path / "bin"
    empty.mkdir()
    code, _, error = Shell(tmp_path / "kafka", 1).run("start", 1, PATH=str(empty))
    assert code == 3
    assert "Docker is not installed; Java is not installed; Maven is not installed" in error
    assert "Java 17+" in error and "drop folder" in error


def test_a_pid_file_of_a_process_that_is_something_else_is_not_believed(broker_module, tmp_path):
    """Pids are reused: neither is another program taken for the broker, nor is it ended."""
    broker = broker_module.Broker(tmp_path)
    (tmp_path / "broker.pid").write_text(json.dumps({"engine": "java", "pid": os.getpid(), "port": broker.port}))
    assert not broker.is_running()
    broker.stop()
    assert not (tmp_path / "broker.pid").exists()


def test_ports_are_free_and_below_those_of_outgoing_connections(broker_module):
    ports = {broker_module.free_port() for _ in range(50)}
    assert len(ports) > 40 and all(1024 < port < 32_768 for port in ports)


def test_both_engines_are_pinned_to_the_same_release():
    artefact = re.search(r"<kafka.version>([\d.]+)<", (SCRIPT.parent / "pom.xml").read_text())
    image = re.search(r"image: *\S*kafka:([\d.]+)", (SCRIPT.parent / "compose.yml").read_text())
    assert artefact and image and artefact[1] == image[1]


def test_what_is_not_kafka_does_not_count_as_an_answer(broker_module):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        other.settimeout(5)
        assert not broker_module.serves(other.getsockname()[1])
    assert not broker_module.serves(broker_module.free_port())
