"""Run one real Apache Kafka broker on the loopback interface, from the command line or from tests.

    python deploy/kafka/broker.py start|stop|status [--port N] [--dir D]

With a Docker engine it runs the official image (`compose.yml`); without one, Java 17 and Maven resolve the
official artefacts once (`pom.xml`, kept in `.kafka/lib`, offline afterwards) and run `kafka.Kafka` from them.
Data, log and pid file live in the broker's folder, `.kafka/` by default. Standard library only.

Exit codes: 0 done (status: it answers), 1 failed (status: it does not), 2 wrong use, 3 nothing to run.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import ctypes
import fcntl
import functools
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

HERE = Path(__file__).resolve().parent
STATE_DIR = HERE.parent.parent / ".kafka"
DEFAULT_PORT = 9092
START_SECONDS = 90.0
STOP_SECONDS = 40.0
REMEDY = (
    "Start a Docker engine, or install Java 17+ and Maven 3.6+ (Debian: apt-get install "
    "openjdk-17-jdk-headless maven; macOS: brew install openjdk@17 maven). "
    "Without a broker, use the drop folder: JOURNEYS_SOURCE=file:///some/folder"
)


class BrokerFailedError(Exception):
    """The broker could not be started or stopped; the message says why and what to do."""


class NothingToRunError(BrokerFailedError):
    """Neither a Docker engine nor Java with Maven is there."""


@functools.cache
def available_engine() -> str | None:
    """`docker` if an engine (not a mere client) answers, `java` with Java 17+ and Maven, else None."""
    if shutil.which("docker") and _succeeds("docker", "info") and _succeeds("docker", "compose", "version"):
        return "docker"
    if _java_major() >= 17 and (shutil.which("mvn") or _library_dir().is_dir()):
        return "java"
    return None


def missing_parts() -> str:
    """Why no broker can run here, in one sentence."""
    docker = "no Docker engine answers" if shutil.which("docker") else "Docker is not installed"
    major = _java_major()
    java = "Java is not installed" if not major else f"Java is version {major}" if major < 17 else ""
    maven = "" if shutil.which("mvn") else "Maven is not installed"
    return "; ".join(part for part in (docker, java, maven) if part)


def free_port() -> int:
    """A loopback port that nothing listens on now, below those the kernel gives to outgoing connections.

    One of those could be taken while the broker restarts, even by a waiting client that connects to itself.
    """
    while True:
        port = random.randrange(15_000, 32_000)
        if _can_listen(port):
            return port


class Broker:
    """One single-node broker in its own folder; several can run at once, each on its own port.

    `port=None` picks a free one. `overrides` are extra server.properties (Java only). `tied=True` lets the
    kernel end the broker with the thread that started it (Linux, Java): a killed test leaves nothing behind.
    """

    def __init__(
        self,
        directory: Path | str = STATE_DIR,
        port: int | None = None,
        *,
        engine: str | None = None,
        heap: str = "512m",
        overrides: Mapping[str, str] | None = None,
        tied: bool = False,
    ) -> None:
        self.directory = Path(directory).absolute()
        self.port = port or free_port()
        self.heap, self.overrides, self.tied = heap, dict(overrides or {}), tied
        self._engine = engine
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def log_path(self) -> Path:
        """Where the broker writes what it has to say."""
        return self.directory / "broker.log"

    @property
    def _state_path(self) -> Path:
        return self.directory / "broker.pid"

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the broker and return when it serves metadata; nothing happens if it already runs.

        Raises NothingToRunError without an engine, BrokerFailedError if the port is taken or Kafka gives up.
        """
        state = self._running_state()
        if state is not None and state["port"] == self.port and serves(self.port):
            return
        if state is not None:
            self.stop()
        engine = self._engine or available_engine()
        if engine is None:
            raise NothingToRunError(f"No Kafka broker can run here: {missing_parts()}. {REMEDY}")
        if not _can_listen(self.port):
            raise BrokerFailedError(f"Port {self.port} is taken by another program. Stop it, or pass --port N.")
        self.directory.mkdir(parents=True, exist_ok=True)
        (self._start_docker if engine == "docker" else self._start_java)()
        self._wait_until_serving()

    def stop(self) -> None:
        """End the broker with SIGTERM and wait for it; data stay. Nothing happens if it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker with SIGKILL, as a crash would."""
        self._end(signal.SIGKILL)

    def is_running(self) -> bool:
        """Whether this folder's broker runs and answers."""
        return self.running_port() is not None

    def running_port(self) -> int | None:
        """The port on which this folder's broker answers, whichever it was started with; None when it does not."""
        state = self._running_state()
        port = None if state is None else int(str(state["port"]))
        return port if port is not None and serves(port) else None

    def _start_java(self) -> None:
        library = resolve_library()
        properties = self._write_properties()
        command = [
            "java",
            f"-Xms{self.heap}",
            f"-Xmx{self.heap}",
            "-XX:+UseSerialGC",
            "-Djava.awt.headless=true",
        ]
        command += [f"-Dlog4j2.configurationFile={self._write_logging()}", "-cp", f"{library}/*"]
        if not (self.directory / "data" / "meta.properties").exists():
            cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            # a leading dash would be read as an option
            arguments = ["format", "-t", cluster_id.replace("-", "A"), "-c", str(properties)]
            self._run([*command, "kafka.tools.StorageTool", *arguments], "format its storage")
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "kafka.Kafka", str(properties)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent if self.tied else None,  # noqa: PLW1509 (only tests tie)
            )
        self._write_state({"engine": "java", "pid": self._process.pid, "port": self.port})

    def _write_properties(self) -> Path:
        controller = free_port()
        values = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.directory / "data"),
            "auto.create.topics.enable": "false",
            "num.partitions": "3",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "log.cleaner.dedupe.buffer.size": str(16 * 2**20),
        } | self.overrides
        path = self.directory / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in values.items()), encoding="utf-8")
        return path

    def _write_logging(self) -> Path:
        path = self.directory / "log4j2.properties"
        path.write_text(
            "status=error\nappender.out.type=Console\nappender.out.name=out\nappender.out.layout.type=PatternLayout\n"
            "appender.out.layout.pattern=%d{ISO8601} %p %c{1}: %m%n\nrootLogger.level=warn\n"
            "rootLogger.appenderRef.out.ref=out\n",
            encoding="utf-8",
        )
        return path

    def _start_docker(self) -> None:
        self._write_state({"engine": "docker", "port": self.port})
        self._run(
            self._compose("up", "--detach", "--quiet-pull"),
            "start its container",
            environment=self._compose_env(),
        )

    def _compose(self, *arguments: str) -> list[str]:
        project = "journeys-kafka-" + hashlib.sha256(str(self.directory).encode()).hexdigest()[:12]
        return [
            "docker",
            "compose",
            "--file",
            str(HERE / "compose.yml"),
            "--project-name",
            project,
            *arguments,
        ]

    def _compose_env(self) -> dict[str, str]:
        identity = self.directory / "cluster-id"  # one per folder: landing tells clusters apart by it
        if not identity.exists():
            identity.write_text(base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A"))
        return {**os.environ, "KAFKA_PORT": str(self.port), "KAFKA_CLUSTER_ID": identity.read_text().strip()}

    def _wait_until_serving(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                self._forget()
                raise BrokerFailedError(f"Kafka ended while starting.{self._log_tail()}")
            if serves(self.port):
                return
            time.sleep(0.1)
        self.kill()
        raise BrokerFailedError(f"Kafka did not answer on port {self.port} in {START_SECONDS:.0f} s.{self._log_tail()}")

    def _end(self, how: signal.Signals) -> None:
        state = self._running_state()
        if state is None:
            self._forget()
            return
        if state["engine"] == "docker":
            verb = ["kill"] if how is signal.SIGKILL else ["down", "--timeout", str(int(STOP_SECONDS))]
            self._run(self._compose(*verb), "stop its container", environment=self._compose_env())
        else:
            pid = int(str(state["pid"]))
            _signal(pid, how)
            if not self._gone(pid, STOP_SECONDS):
                _signal(pid, signal.SIGKILL)
                self._gone(pid, STOP_SECONDS)
        self._forget()

    def _gone(self, pid: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process is not None and self._process.pid == pid:
                has_ended = self._process.poll() is not None  # reaps our own child, which would stay a zombie
            else:
                has_ended = _has_ended(pid, self.directory)
            if has_ended:
                return True
            time.sleep(0.05)
        return False

    def _running_state(self) -> dict[str, object] | None:
        """What the pid file says, if its process still is this folder's broker."""
        try:
            state: dict[str, object] = json.loads(self._state_path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        if state["engine"] == "java":
            return state if _is_broker(int(str(state["pid"])), self.directory) else None
        listed = subprocess.run(
            self._compose("ps", "--quiet"), env=self._compose_env(), capture_output=True, check=False
        )
        return state if listed.returncode == 0 and listed.stdout.strip() else None

    def _write_state(self, state: Mapping[str, object]) -> None:
        temporary = self._state_path.with_suffix(".tmp")
        temporary.write_text(json.dumps(state), encoding="utf-8")
        temporary.replace(self._state_path)

    def _forget(self) -> None:
        self._process = None
        self._state_path.unlink(missing_ok=True)

    def _run(self, command: list[str], purpose: str, *, environment: Mapping[str, str] | None = None) -> None:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            reason = "\n".join(line for line in said if not line.startswith("\tat "))  # no stack, it hides the message
            raise BrokerFailedError(f"Kafka could not {purpose}: {reason[-800:]}")

    def _log_tail(self) -> str:
        if not self.log_path.exists():
            return ""
        tail = "\n".join(self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])
        return f" The end of {self.log_path}:\n{tail}"


def resolve_library() -> Path:
    """The folder with Kafka's jars, fetched by Maven on first use and whole or absent ever after."""
    library = _library_dir()
    if library.is_dir():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    with (library.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test workers may start at once
        if library.is_dir():
            return library
        print("Fetching Apache Kafka with Maven (about 45 MB, once) ...", file=sys.stderr, flush=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=library.parent))
        try:
            command = ["mvn", "--batch-mode", "--quiet", "--file", str(HERE / "pom.xml")]
            command += [
                "dependency:copy-dependencies",
                f"-DoutputDirectory={partial}",
                "-DincludeScope=runtime",
            ]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if done.returncode:
                reason = (done.stdout + done.stderr).strip()[-800:]
                raise BrokerFailedError(
                    f"Maven could not fetch Kafka: {reason}\nCheck the network or ~/.m2/settings.xml."
                )
            partial.chmod(0o755)  # mkdtemp made it private; any user may run the broker
            partial.rename(library)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return library


def serves(port: int) -> bool:
    """Whether a Kafka broker on this loopback port lists itself in its metadata (it then takes requests)."""
    # Metadata v1 for no topics: ApiVersions alone would be answered before the broker may host a topic
    client = b"broker.py"
    request = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            header = _receive(connection, 4)
            (size,) = struct.unpack(">i", header)
            body = _receive(connection, min(size, 65536))
        correlation, broker_count = struct.unpack(">ii", body[:8])
    except (OSError, ValueError, struct.error):  # not there, or something else than Kafka
        return False
    return bool(correlation == 1 and broker_count > 0)


def _receive(connection: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise ConnectionError("closed")
        parts += part
    return parts


def _library_dir() -> Path:
    return STATE_DIR / "lib" / hashlib.sha256((HERE / "pom.xml").read_bytes()).hexdigest()[:12]


@functools.cache
def _java_major() -> int:
    try:
        done = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False, timeout=20)
        version = done.stderr.split('"')[1]
    except (OSError, subprocess.TimeoutExpired, IndexError):
        return 0
    digits = version.removeprefix("1.").split(".")[0].split("-")[0]
    return int(digits) if digits.isdigit() else 0


def _succeeds(*command: str) -> bool:
    try:
        subprocess.run(command, capture_output=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _can_listen(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _signal(pid: int, how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)


def _is_broker(pid: int, directory: Path) -> bool:
    """Whether the process is a broker of this folder: pids are reused, so the command line decides."""
    entry = Path("/proc") / str(pid)
    if Path("/proc/self").exists():
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            return False
    else:
        done = subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False)
        command = done.stdout
    return str(directory / "server.properties") in command


def _has_ended(pid: int, directory: Path) -> bool:
    """Whether the broker is wholly gone: a dying process loses its command line before it lets go of its port."""
    status = Path("/proc") / str(pid) / "stat"
    if not Path("/proc/self").exists():
        return not _is_broker(pid, directory)
    try:
        state = status.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
        command = status.with_name("cmdline").read_bytes()
    except (OSError, IndexError):
        return True
    return state in "ZX" or (bool(command) and not _is_broker(pid, directory))


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Run one Apache Kafka broker on the loopback interface.")
    parser.add_argument("command", choices=["start", "stop", "status"])
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port of the broker (default %(default)s)")
    parser.add_argument("--dir", type=Path, default=STATE_DIR, help="folder of its data, log and pid file")
    options = parser.parse_args(arguments)
    broker = Broker(options.dir, options.port)
    try:
        if options.command == "start":
            broker.start()
            print(f"Kafka answers on {broker.bootstrap}; log: {broker.log_path}")
        elif options.command == "stop":
            broker.stop()
            print("Kafka is stopped; its data are kept.")
        elif (port := broker.running_port()) is not None:
            print(f"Kafka runs on 127.0.0.1:{port}.")
        else:
            print("Kafka does not run.")
            return 1
    except NothingToRunError as error:
        print(error, file=sys.stderr)
        return 3
    except BrokerFailedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
