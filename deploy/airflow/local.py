"""Airflow inside this project: SQLite, LocalExecutor, loopback only, nothing outside `.airflow/`.

    python deploy/airflow/local.py up                       the UI on http://127.0.0.1:8080, until Ctrl-C
    python deploy/airflow/local.py run --conf '{...}'       one run of journeys_nightly, waited for, then stop

For production use the deployment of your choice (docs/operations.md); the DAG is the same.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

PROJECT_DIR = Path(__file__).resolve().parent.parent.parent
POOL = "journeys_warehouse"
DAG_ID = "journeys_nightly"
PARTS = ("api-server", "scheduler", "dag-processor")


class LocalAirflowError(Exception):
    """Airflow did not start, or a run did not end; the message says where the logs are."""


def free_port() -> int:
    """A TCP port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LocalAirflow:
    """The three processes of an Airflow of this project's own; a context manager.

    `env` adds environment variables (JOURNEYS_* settings) for scheduler and tasks.
    """

    def __init__(self, home: Path, port: int | None = None, env: Mapping[str, str] | None = None) -> None:
        self.home = home.absolute()
        self.port = port or free_port()
        self.extra_env = dict(env or {})
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._token: str | None = None

    @property
    def url(self) -> str:
        """Where the UI and the REST API are."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> LocalAirflow:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _environment(self) -> dict[str, str]:
        secret = self._secret()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
        return {
            **inherited,
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT_DIR / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__SECRET_KEY": secret,
            "AIRFLOW__API_AUTH__JWT_SECRET": secret,
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT_DIR), os.environ.get("PYTHONPATH")])),
            "NO_PROXY": "127.0.0.1,localhost",
            **self.extra_env,
        }

    def _secret(self) -> str:
        path = self.home / "secret"
        if not path.exists():
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(64))
        return path.read_text()

    def start(self) -> None:
        """Start everything and return when the DAG is known and the pool exists."""
        environment = self._environment()
        logs = self.home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        migrated = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=environment, cwd=PROJECT_DIR, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if migrated.returncode:
            raise LocalAirflowError(f"airflow db migrate failed:\n{migrated.stderr[-2000:]}")
        try:
            for part in PARTS:
                with (logs / f"{part}.log").open("ab") as log:
                    self._processes[part] = subprocess.Popen(
                        [sys.executable, "-m", "airflow", part],
                        env=environment, cwd=PROJECT_DIR, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                        start_new_session=True,
                    )  # fmt: skip
            self._until(lambda: self._call("GET", "/api/v2/monitor/health"), 90, "the API server")
            with contextlib.suppress(LocalAirflowError):  # it exists already
                self._call("POST", "/api/v2/pools", {"name": POOL, "slots": 1, "description": "One writer at a time"})
            self._until(lambda: self._call("GET", f"/api/v2/dags/{DAG_ID}"), 90, f"the DAG {DAG_ID}")
        except BaseException:
            self.stop()
            raise

    def _until(self, attempt: Any, seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while True:
            for part, process in self._processes.items():
                if process.poll() is not None:
                    raise LocalAirflowError(f"{part} ended with {process.returncode}:\n{self.log_tail(part)}")
            try:
                attempt()
                return
            except (OSError, LocalAirflowError) as error:
                if time.monotonic() > deadline:
                    raise LocalAirflowError(
                        f"{what} was not there after {seconds:g} s ({error}); logs in {self.home / 'logs'}"
                    ) from error
                time.sleep(0.3)

    def log_tail(self, part: str, characters: int = 2000) -> str:
        """The end of a process's log."""
        path = self.home / "logs" / f"{part}.log"
        return path.read_text(errors="replace")[-characters:] if path.exists() else ""

    def stop(self) -> None:
        """End every process with SIGTERM and wait; whatever is left of their groups is killed."""
        for process in reversed(list(self._processes.values())):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                pass
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One REST call; answers the JSON. Raises LocalAirflowError with the server's words."""
        if self._token is None and path.startswith("/api/v2") and "monitor" not in path:
            self._token = self._request("GET", "/auth/token", None)["access_token"]
        return self._request(method, path, body)

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise LocalAirflowError(f"{method} {path}: {error.code} {error.read()[:500].decode()}") from error

    def trigger(self, conf: Mapping[str, Any] | None = None, dag_id: str = DAG_ID, run_id: str | None = None) -> str:
        """Unpause the DAG and start a run; answers its run id."""
        self._call("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False})
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf or {})}
        if run_id:
            body["dag_run_id"] = run_id
        return str(self._call("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def wait(self, run_id: str, timeout_seconds: float, dag_id: str = DAG_ID) -> str:
        """Wait for a run to end; answers `success` or `failed`."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            state = self._call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")["state"]
            if state in ("success", "failed"):
                return str(state)
            time.sleep(0.5)
        raise LocalAirflowError(f"run {run_id} did not end within {timeout_seconds:g} s; logs in {self.home / 'logs'}")

    def tasks(self, run_id: str, dag_id: str = DAG_ID) -> list[dict[str, Any]]:
        """The run's task instances: task_id, map_index, state, duration, try_number, in order of start."""
        answer = self._call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances")
        return sorted(answer["task_instances"], key=lambda item: item["start_date"] or "9")

    def task_log(self, run_id: str, task_id: str, try_number: int, map_index: int = -1, dag_id: str = DAG_ID) -> str:
        """What a task instance logged."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}?map_index={map_index}"
        content = self._call("GET", path)["content"]
        return "\n".join(json.dumps(line) if isinstance(line, dict) else str(line) for line in content)


def _report(airflow: LocalAirflow, run_id: str) -> None:
    for item in airflow.tasks(run_id):
        mapped = f"[{item['map_index']}]" if item["map_index"] >= 0 else ""
        print(f"  {item['task_id'] + mapped:<10} {item['state']:<16} {item['duration'] or 0:6.1f} s")
        if item["state"] == "failed":
            print(airflow.task_log(run_id, item["task_id"], item["try_number"], item["map_index"])[-3000:])


def _up(airflow: LocalAirflow) -> int:
    with airflow:
        print(f"Airflow is up: {airflow.url} (Ctrl-C ends it; logs in {airflow.home / 'logs'})", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with contextlib.suppress(KeyboardInterrupt):
            while all(process.poll() is None for process in airflow._processes.values()):
                time.sleep(1)
    return 0


def _run(airflow: LocalAirflow, conf: Mapping[str, Any], timeout_seconds: float) -> int:
    with airflow:
        run_id = airflow.trigger(conf)
        print(f"run {run_id} of {DAG_ID}", flush=True)
        state = airflow.wait(run_id, timeout_seconds)
        _report(airflow, run_id)
    return 0 if state == "success" else 1


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=("up", "run"))
    parser.add_argument("--home", type=Path, default=PROJECT_DIR / ".airflow", help="AIRFLOW_HOME")
    parser.add_argument("--port", type=int, help="port of the UI (default: 8080 for up, a free one for run)")
    parser.add_argument("--conf", type=json.loads, default={}, help="parameters of the run, as JSON")
    parser.add_argument("--timeout", type=float, default=600, help="seconds to wait for the run")
    given = parser.parse_args(arguments)
    try:
        if given.command == "up":
            return _up(LocalAirflow(given.home, given.port or 8080))
        return _run(LocalAirflow(given.home, given.port), given.conf, given.timeout)
    except LocalAirflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
