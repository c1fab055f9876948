"""`make campaign`: the long proofs (hundreds of kills, thousands of histories, millions of records).

Runs the tests marked `campaign` and writes what they measured to docs/measurements/campaign.md. Further arguments go to
pytest (`python benchmarks/campaign.py -k kill`); the page is written only by a whole run in which everything held.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measurements import PROJECT_DIR, markdown_table, write_page


def main(arguments: list[str]) -> int:
    """Run, print every figure, keep them; the exit code is pytest's."""
    with tempfile.TemporaryDirectory(prefix="journeys-campaign-") as folder:
        figures = Path(folder) / "figures.ndjson"
        figures.touch()
        environment = {**os.environ, "JOURNEYS_FIGURES": str(figures), "JOURNEYS_REQUIRE_BROKER": "1"}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            "campaign",
            "-v",
            "--durations=0",
            "--timeout=3600",
            *arguments,
        ]
        started = time.monotonic()
        code = subprocess.run(command, cwd=PROJECT_DIR, env=environment, check=False).returncode
        minutes = (time.monotonic() - started) / 60
        lines = [json.loads(line) for line in figures.read_text(encoding="utf-8").splitlines()]
    rows = [
        (f"`{line.pop('test')}`", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in line.items()))
        for line in lines
    ]
    for name, text in rows:
        print(f"{name}: {text}")
    if code == 0 and not arguments:
        body = f"`make campaign`, {minutes:.0f} minutes; every proof held.\n\n" + markdown_table(
            ("Proof", "Seen"), rows
        )
        print(f"wrote {write_page('campaign', 'Long proofs', body)}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
