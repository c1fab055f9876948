"""Real homes: a small scenario in a drop folder, landed, built and published by the pipeline's own steps."""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dags import steps
from ingest.scenario.people import Record
from ingest.scenario.run import generate
from schemas.settings import Settings, load_settings
from schemas.topics import SOURCE_TOPICS


class Home:
    """One installation in a folder of its own: JOURNEYS_HOME, a drop folder, a journey.yml."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        os.umask(0o022)  # as a new process has it: the pipeline makes its own private
        self.folder, self.drop = folder, folder / "drop"
        self.drop.mkdir(parents=True, exist_ok=True)
        self.config = folder / "journey.yml"
        if not self.config.exists():
            self.config.write_text("quality:\n  quarantined_ratio: {warn: 0.005, fail: 0.2}\n")  # one check warns
        self.url = url or f"file://{self.drop}"
        self.settings = self.with_settings()

    def with_settings(self, **more: Any) -> Settings:
        return load_settings(home=self.folder / "home", config=self.config, source=self.url, **more)

    @property
    def current(self) -> Path:
        return self.settings.published_dir / "current"

    def add(self, records: Iterable[Record], name: str) -> None:
        """One more file per topic in the drop folder."""
        by_topic = defaultdict(list)
        for record in records:
            by_topic[record.topic].append((record.value or b"") + b"\n")
        for topic, lines in by_topic.items():
            (self.drop / topic).mkdir(exist_ok=True)
            (self.drop / topic / f"{name}.ndjson").write_bytes(b"".join(lines))

    def land(self) -> int:
        return sum(steps.land([topic], self.url, self.settings)["record_count"] for topic in SOURCE_TOPICS)

    def silver(self, run_id: str = "r1", **options: Any) -> dict[str, Any]:
        return steps.silver(self.settings, run_id=run_id, source=self.url, **options)

    def build(self, run_id: str = "r1", **options: Any) -> list[dict[str, Any]]:
        return [self.silver(run_id, **options), steps.gold(self.settings, run_id=run_id)]

    def publish(self, run_id: str = "r1") -> dict[str, Any]:
        return steps.publish(self.settings, run_id=run_id)

    def night(self, run_id: str = "r1", **options: Any) -> list[dict[str, Any]]:
        self.land()
        return [*self.build(run_id, landing_problem_count=0, **options), self.publish(run_id)]

    def manifest(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.current / "manifest.json").read_text())
        return content

    def tables(self, *, without: Iterable[str] = ()) -> dict[str, list[str]]:
        """Every published row as text, sorted, without what two equal builds may differ in and columns `without`."""
        run_id = self.manifest()["run_id"]
        found = {}
        with duckdb.connect(str(self.current.resolve() / "journeys.duckdb"), read_only=True) as con:
            con.execute("set TimeZone = 'UTC'")
            for (name,) in con.execute("select view_name from duckdb_views() where not internal").fetchall():
                # The cluster of a drop folder is its path, another one in each installation.
                ignored = {"_run_id", "_cluster", *without} | (
                    {"run_id", "checked_at"} if name == "data_quality" else set()
                )
                columns = [row[0] for row in con.execute(f"describe {name}").fetchall() if row[0] not in ignored]
                only = f"where run_id = '{run_id}'" if name == "data_quality" else ""
                rows = con.execute(f"select {', '.join(columns)} from {name} {only}").fetchall()
                found[name] = sorted(map(repr, rows))
        return found

    def quarantine(self, columns: str = "reason, field") -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.settings.warehouse_path), read_only=True) as con:
            return con.execute(f"select {columns} from quarantine order by all").fetchall()

    def copy_to(self, folder: Path) -> Home:
        """The same installation elsewhere, publications left out; it still reads the old drop folder."""
        shutil.copytree(self.folder, folder, symlinks=True, ignore=shutil.ignore_patterns("published"))
        return Home(folder, self.url)


@pytest.fixture(scope="session")
def scenario() -> list[Record]:
    """Thirty customers over forty days, faults included, in the order in which they were sent."""
    return generate(seed=3, customers=30, days=40).records


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, scenario: list[Record]) -> Home:
    """A published night over the whole scenario; tests read it and change nothing."""
    home = Home(tmp_path_factory.mktemp("shared"))
    home.add(scenario, "all")
    home.night()
    return home


@pytest.fixture
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Home]:
    """An empty installation; `new_home()` again gives another."""
    return lambda: Home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def home(new_home: Callable[[], Home]) -> Home:
    return new_home()


@pytest.fixture
def built(shared: Home, tmp_path: Path) -> Home:
    """A copy of the shared night, built and not published, to change at will."""
    return shared.copy_to(tmp_path / "built")
