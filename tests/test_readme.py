"""The README's numbers are those a newcomer sees: its queries run on the demo's own data, as written."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dags import steps
from examples.demo import WINDOW_END
from ingest.scenario.run import produce
from schemas.settings import PROJECT_DIR, load_settings
from schemas.topics import SOURCE_TOPICS

README = (PROJECT_DIR / "README.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def demo_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's scenario through the drop folder and one night."""
    home = tmp_path_factory.mktemp("readme")
    (home / "drop").mkdir()
    settings, url = load_settings(home=home), f"file://{home / 'drop'}"
    produce(url, settings=settings)
    for topic in SOURCE_TOPICS:
        steps.land([topic], url, settings)
    steps.silver(settings, run_id="readme", source=url, data_as_of=datetime.fromisoformat(WINDOW_END).astimezone(UTC))
    steps.gold(settings, run_id="readme")
    steps.publish(settings, run_id="readme")
    return home


@pytest.mark.slow
def test_every_query_of_the_readme_answers_what_the_readme_shows(demo_home: Path) -> None:
    assert len(QUERIES) == 3
    for sql, shown in QUERIES:
        command = [str(Path(sys.executable).with_name("journeys")), "--home", str(demo_home), "query", sql]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        seen, written = (_without_margin(text) for text in (answer, shown))
        assert seen == written, f"the README shows another answer; now it is\n{answer}"


def _without_margin(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]
