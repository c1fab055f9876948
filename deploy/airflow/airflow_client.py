"""A small client of Airflow's REST API (v2): start a run, wait for it, say what its tasks did. Stdlib only."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

DAG_ID = "journeys_nightly"
READY_SECONDS = 120.0
ENDED_STATES = ("success", "failed")
LOG_LINES = 15


class LocalAirflowError(Exception):
    """Airflow did not start, refused a call, or a run did not end; the message says what to look at."""


class ServerBusyError(LocalAirflowError):
    """The API server answered with its own fault (5xx); asking again may help."""


class NotThereError(LocalAirflowError):
    """The API server knows no such thing (404)."""


class AlreadyThereError(LocalAirflowError):
    """The API server has it already (409)."""


class AirflowClient:
    """Calls one Airflow as its administrator. `check_alive` is where a subclass that runs the server says it died."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._token: str | None = None
        # No proxy may see what stays on this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def check_alive(self) -> None:
        """Raise LocalAirflowError when waiting on is pointless."""

    def is_healthy(self) -> bool:
        """Whether database, scheduler and DAG processor are well."""
        health = self._request("GET", "/api/v2/monitor/health", None)
        return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))

    def ensure_pool(self, name: str, *, slots: int, description: str) -> None:
        """Make a pool unless it is there; slots that somebody changed stay."""
        with contextlib.suppress(AlreadyThereError):
            self.call("POST", "/api/v2/pools", {"name": name, "slots": slots, "description": description})

    def wait_for_dag(self, dag_id: str = DAG_ID) -> None:
        """Return when Airflow knows the DAG. Raises LocalAirflowError with the reason when a file has an error."""

        def _is_known() -> bool:
            errors = self.call("GET", "/api/v2/importErrors")["import_errors"]
            if errors:
                raise LocalAirflowError(
                    "\n".join(f"{item['filename']} cannot be imported:\n{item['stack_trace']}" for item in errors)
                )
            with contextlib.suppress(NotThereError):
                self.call("GET", f"/api/v2/dags/{quote(dag_id)}")
                return True
            return False

        self.until(_is_known, f"the DAG {dag_id}")

    def trigger(self, conf: Mapping[str, Any] | None = None, dag_id: str = DAG_ID, run_id: str | None = None) -> str:
        """Unpause the DAG and start a run with `conf` as its parameters; answers the run's id."""
        self.wait_for_dag(dag_id)
        self.call("PATCH", f"/api/v2/dags/{quote(dag_id)}", {"is_paused": False})
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf or {})}
        if run_id:
            body["dag_run_id"] = run_id
        return str(self.call("POST", f"/api/v2/dags/{quote(dag_id)}/dagRuns", body)["dag_run_id"])

    def wait(self, run_id: str, timeout_seconds: float, dag_id: str = DAG_ID) -> str:
        """Wait for a run to end; answers `success` or `failed`. Raises LocalAirflowError after the time-out."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            self.check_alive()
            with contextlib.suppress(ServerBusyError, OSError):
                state = self.call("GET", _run_path(dag_id, run_id))["state"]
                if state in ENDED_STATES:
                    return str(state)
            time.sleep(0.2)
        raise LocalAirflowError(
            f"Run {run_id} did not end within {timeout_seconds:g} s.\n{self.report(run_id, dag_id)}"
        )

    def tasks(self, run_id: str, dag_id: str = DAG_ID) -> list[dict[str, Any]]:
        """The run's task instances: task_id, map_index, state, duration (s), try_number …, in order of start."""
        answer = self.call("GET", f"{_run_path(dag_id, run_id)}/taskInstances")
        return sorted(answer["task_instances"], key=lambda item: (item["start_date"] or "9", item["map_index"]))

    def task_log(self, run_id: str, task_id: str, try_number: int, map_index: int = -1, dag_id: str = DAG_ID) -> str:
        """What one attempt of a task logged, one line per event."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task_id)}/logs/{try_number}?map_index={map_index}"
        return "\n".join(_log_line(line) for line in self.call("GET", path)["content"])

    def report(self, run_id: str, dag_id: str = DAG_ID) -> str:
        """Each task's state and duration, and the end of the log of those that failed."""
        lines = []
        for item in self.tasks(run_id, dag_id):
            name = item["task_id"] + (f"[{item['map_index']}]" if item["map_index"] >= 0 else "")
            attempt = f"  (attempt {item['try_number']})" if item["try_number"] > 1 else ""
            lines.append(f"  {name:<10} {item['state'] or 'waiting':<16} {item['duration'] or 0:6.1f} s{attempt}")
            if item["state"] in ("failed", "up_for_retry"):
                log = self.task_log(run_id, item["task_id"], item["try_number"], item["map_index"], dag_id)
                lines += [f"    {line}" for line in log.splitlines()[-LOG_LINES:]]
        return "\n".join(lines)

    def until(self, is_done: Callable[[], bool], what: str) -> None:
        """Ask until it is done. Raises LocalAirflowError when it takes too long or the server died."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            self.check_alive()
            with contextlib.suppress(ServerBusyError, OSError):
                if is_done():
                    return
            time.sleep(0.1)
        raise LocalAirflowError(f"{what} was not there within {READY_SECONDS:g} s")

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One REST call; answers the JSON. Raises LocalAirflowError with the server's words."""
        if self._token is None:
            self._token = self._request("GET", "/auth/token", None)["access_token"]
        return self._request(method, path, body)

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=30) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            kinds: dict[int, type[LocalAirflowError]] = {404: NotThereError, 409: AlreadyThereError}
            kind = ServerBusyError if error.code >= 500 else kinds.get(error.code, LocalAirflowError)
            raise kind(f"{method} {path}: {error.code} {error.read()[:500].decode(errors='replace')}") from error


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}"


def _log_line(line: Any) -> str:
    """One event of a structured task log as text, with what an exception says."""
    if not isinstance(line, dict):
        return str(line)
    text = f"{line.get('level') or ''} {line.get('event') or ''}".strip()
    for error in line.get("error_detail") or ():
        text += f"\n{error.get('exc_type')}: {error.get('exc_value')}"
    return text
