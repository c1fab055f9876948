"""Airflow inside this project: SQLite, LocalExecutor, loopback only, nothing outside `.airflow/`.

    python deploy/airflow/local.py up                      the UI on http://127.0.0.1:8080, until Ctrl-C
    python deploy/airflow/local.py run --window-end T      one run of journeys_nightly, waited for, then stop

`LocalAirflow` is the same as a library, for tests and the demo. Whoever reaches the port is administrator, so it
listens on loopback alone; in production use the deployment of your choice: the DAG is the same. Standard library only.

Exit codes: 0 done, 1 failed (Airflow or the run), 2 wrong use.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import ctypes
import importlib.metadata
import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # the client lies beside us, however this file is loaded

from airflow_client import DAG_ID, AirflowClient, LocalAirflowError  # noqa: E402

PROJECT_DIR = HERE.parent.parent
DAGS_DIR = PROJECT_DIR / "dags"
POOL = "journeys_warehouse"
TASK_SECONDS = 3.0
STOP_SECONDS = 15.0
# The order of starting. Ending goes scheduler first: a task that is told to end still reports to the API server.
COMMANDS = {
    "api-server": ("api-server",),
    "dag-processor": ("dag-processor",),
    # Logs are read from disk; the log server would listen on every interface.
    "scheduler": ("scheduler", "--skip-serve-logs"),
}


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LocalAirflow(AirflowClient):
    """API server, scheduler and DAG processor of one private Airflow in `home`; a context manager.

    `port=None` picks a free one. `env` adds environment variables (JOURNEYS_* settings) for the tasks. The three
    end with the thread that started them (Linux), so that even a killed caller leaves nothing behind.
    """

    def __init__(
        self,
        home: Path,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
        *,
        dags: Path = DAGS_DIR,
    ) -> None:
        self.home, self.dags = home.absolute(), dags.absolute()
        self.port = port or free_port()
        super().__init__(f"http://127.0.0.1:{self.port}")
        self.extra_env = dict(env or {})
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def logs(self) -> Path:
        """Folder of the logs: one file per process, and the tasks' own."""
        return self.home / "logs"

    def __enter__(self) -> LocalAirflow:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything; return when scheduler and DAG processor beat and the pool exists.

        Raises LocalAirflowError when the port is taken, the database cannot be made or a process ends.
        """
        if not _can_listen(self.port):
            raise LocalAirflowError(
                f"Port {self.port} is taken by another program. Stop it, or choose one with --port N."
            )
        self.logs.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)
        environment = self._environment()
        self._migrate(environment)
        try:
            for part, arguments in COMMANDS.items():
                with (self.logs / f"{part}.log").open("ab") as log:
                    self._processes[part] = subprocess.Popen(
                        [sys.executable, "-m", "airflow", *arguments],
                        env=environment,
                        cwd=PROJECT_DIR,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,  # Ctrl-C is ours to handle, and the session names what to end
                        preexec_fn=_end_with_parent,  # noqa: PLW1509 (nothing else can tie a child to us)
                    )
            self.until(self.is_healthy, f"Airflow (logs in {self.logs})")
            self.ensure_pool(POOL, slots=1, description="One writer of the warehouse at a time")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process and wait: SIGTERM first, and SIGKILL for what is left of their sessions after a while.

        A task that still runs after some seconds is killed: its step is one transaction, and is retried.
        """
        for part in reversed(COMMANDS):
            if process := self._processes.get(part):
                _end(process)
        self._processes.clear()
        self._token = None

    def is_running(self) -> bool:
        """Whether all three processes live."""
        return bool(self._processes) and all(process.poll() is None for process in self._processes.values())

    def log_tail(self, part: str, lines: int = 15) -> str:
        """The end of a process's log."""
        path = self.logs / f"{part}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def _environment(self) -> dict[str, str]:
        """The children's environment: ours, without anything that would configure another Airflow."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        # Without bytecode every process compiles Airflow anew, which costs seconds each.
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)
        known = self._secrets()
        options: dict[str, dict[str, object]] = {
            "CORE": {
                "DAGS_FOLDER": self.dags,
                "EXECUTOR": "LocalExecutor",
                "PARALLELISM": 4,
                "LOAD_EXAMPLES": False,
                "FERNET_KEY": known["fernet_key"],
                "SIMPLE_AUTH_MANAGER_ALL_ADMINS": True,
                "EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
                "HOSTNAME_CALLABLE": "socket.gethostname",  # the default asks the name server
            },
            "DATABASE": {"SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}"},
            "API": {
                "HOST": "127.0.0.1",
                "PORT": self.port,
                "WORKERS": 1,
                "BASE_URL": self.url,
                "SECRET_KEY": known["secret_key"],
                "ENABLE_SWAGGER_UI": False,  # its page loads scripts from another host
            },
            "API_AUTH": {"JWT_SECRET": known["jwt_secret"]},
            # At the default of 5 s each task holds its slot that long.
            "WORKERS": {"MIN_HEARTBEAT_INTERVAL": 1},
            "SCHEDULER": {
                "SCHEDULER_IDLE_SLEEP_TIME": 0.2,
                "SCHEDULER_HEARTBEAT_SEC": 1,
                "TASK_INSTANCE_HEARTBEAT_TIMEOUT": 60,  # how soon a task lost to a crash is retried
            },
            "DAG_PROCESSOR": {"PARSING_PROCESSES": 1, "REFRESH_INTERVAL": 10},
            "LOGGING": {"COLORED_CONSOLE_LOG": False},
            "USAGE_DATA_COLLECTION": {"ENABLED": False},
        }
        settings = {
            f"AIRFLOW__{section}__{name}": str(value)
            for section, values in options.items()
            for name, value in values.items()
        }
        paths = {
            "AIRFLOW_HOME": str(self.home),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT_DIR), os.environ.get("PYTHONPATH")])),
            # Relative to where the caller stands, not to where Airflow runs.
            "JOURNEYS_HOME": str(Path(os.environ.get("JOURNEYS_HOME", PROJECT_DIR / "data")).absolute()),
        }
        local = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
        return {**inherited, **settings, **paths, **local, **self.extra_env}

    def _secrets(self) -> dict[str, str]:
        """Made once per home, readable by the owner alone."""
        path = self.home / "secrets.json"
        if not path.exists():
            made = {
                "jwt_secret": secrets.token_hex(64),
                "secret_key": secrets.token_hex(64),
                "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            }
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(made, file)
            temporary.replace(path)
        loaded: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return loaded

    def _migrate(self, environment: Mapping[str, str]) -> None:
        """Make or migrate the database, once per version of Airflow."""
        version, marker = importlib.metadata.version("apache-airflow"), self.home / "migrated"
        database = self.home / "airflow.db"
        if database.exists() and marker.exists() and marker.read_text(encoding="utf-8") == version:
            return
        done = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=environment,
            cwd=PROJECT_DIR,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LocalAirflowError(
                f"Airflow's database could not be made. Remove {self.home} and try again:\n{done.stderr[-2000:]}"
            )
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("pragma journal_mode = wal")  # stays with the file; readers then never wait
        marker.write_text(version, encoding="utf-8")

    def check_alive(self) -> None:
        """Raise LocalAirflowError with the end of its log when one of the three has ended."""
        for part, process in self._processes.items():
            if process.poll() is not None:
                raise LocalAirflowError(
                    f"Airflow's {part} ended with {process.returncode}. The end of {self.logs / part}.log:\n"
                    f"{self.log_tail(part)}"
                )


def _can_listen(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will; a closed one may linger
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _end_with_parent() -> None:
    """In the child: SIGTERM when the parent dies, however it dies (Linux has it, others go without)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a session's founder and everything in it; a task in it may take TASK_SECONDS to finish by itself."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(TASK_SECONDS)
    # Airflow makes each task a process group of its own and waits for it; its supervisor then reports the end.
    for pid in _session_members(process.pid):
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(pid) != process.pid:
                os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for pid in _session_members(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _session_members(leader: int) -> list[int]:
    """Living processes of the session that `leader` founded, `leader` included while it lives."""
    if Path("/proc/self/stat").exists():
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    else:
        listed = subprocess.run(["ps", "-A", "-o", "pid="], capture_output=True, text=True, check=True)
        pids = [int(pid) for pid in listed.stdout.split()]
    members = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader:
                members.append(pid)
    return members


def _up(airflow: LocalAirflow) -> int:
    print("Starting Airflow …", flush=True)
    with airflow:
        airflow.wait_for_dag()
        print(f"Airflow is up: {airflow.url} (Ctrl-C ends it; logs in {airflow.logs})", flush=True)
        while airflow.is_running():
            time.sleep(0.5)
        airflow.check_alive()
    return 1


def _run(airflow: LocalAirflow, conf: Mapping[str, Any], run_id: str | None, timeout_seconds: float) -> int:
    started = time.monotonic()
    with airflow:
        airflow.wait_for_dag()
        print(f"Airflow is up after {time.monotonic() - started:.1f} s", flush=True)
        run_id = airflow.trigger(conf, run_id=run_id)
        print(f"{DAG_ID}: run {run_id}", flush=True)
        started = time.monotonic()
        state = airflow.wait(run_id, timeout_seconds)
        print(airflow.report(run_id))
        print(f"{DAG_ID}: {state} after {time.monotonic() - started:.1f} s")
    return 0 if state == "success" else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=("up", "run"))
    parser.add_argument("--home", type=Path, default=PROJECT_DIR / ".airflow", help="AIRFLOW_HOME")
    parser.add_argument("--port", type=int, help="port of the UI (default: 8080 for up, a free one for run)")
    run = parser.add_argument_group("run: the run's parameters, as the DAG documents them")
    run.add_argument("--window-start", metavar="T", help="RFC 3339")
    run.add_argument("--window-end", metavar="T", help="RFC 3339; build as of this instant")
    run.add_argument("--source", metavar="URL", help="kafka://host:port or file:///folder")
    run.add_argument("--full", action="store_true", default=None, help="load bronze anew")
    run.add_argument("--run-id", help="name of the run")
    run.add_argument("--conf", type=json.loads, default={}, help="further parameters, as JSON")
    run.add_argument("--timeout", type=float, default=600, help="seconds to wait for the run")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the module's text."""
    given = _parser().parse_args(arguments)
    # Both ways of being asked to end unwind the same way, also while starting.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if given.command == "up":
            return _up(LocalAirflow(given.home, given.port or 8080))
        names = ("window_start", "window_end", "source", "full")
        conf = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
        # A run asked for by hand must not meet one that the schedule starts when the DAG is unpaused.
        airflow = LocalAirflow(given.home, given.port, {"AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False"})
        return _run(airflow, {**given.conf, **conf}, given.run_id, given.timeout)
    except LocalAirflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nAirflow has ended.", file=sys.stderr)
        return 0 if given.command == "up" else 130


if __name__ == "__main__":
    sys.exit(main())
