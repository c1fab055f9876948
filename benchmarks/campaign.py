"""`make campaign`: the long proofs (hundreds of kills, thousands of histories, millions of records).

Runs the tests marked `campaign` and keeps what they measured in docs/measurements/campaign.md, a row per proof. Further
arguments go to pytest: `python benchmarks/campaign.py -k kill` renews the rows of those proofs alone. When one fails,
nothing is written.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measurements import FOLDER, PROJECT_DIR, markdown_table, write_page

_ROW = re.compile(r"^\| (`[^|]+`) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Run, print every figure, keep them; the exit code is pytest's."""
    with tempfile.TemporaryDirectory(prefix="journeys-campaign-") as folder:
        figures = Path(folder) / "figures.ndjson"
        figures.touch()
        environment = {**os.environ, "JOURNEYS_FIGURES": str(figures), "JOURNEYS_REQUIRE_BROKER": "1"}
        command = [sys.executable, "-m", "pytest", "-m", "campaign", "-v", "--timeout=3600", *arguments]
        code = subprocess.run(command, cwd=PROJECT_DIR, env=environment, check=False).returncode
        lines = [json.loads(line) for line in figures.read_text(encoding="utf-8").splitlines()]
    seen = {}
    for line in lines:
        name = f"`{line.pop('test')}`"
        seen[name] = (", ".join(f"{key.replace('_', ' ')} {value}" for key, value in line.items()), _today())
        print(f"{name}: {seen[name][0]}")
    if code == 0:
        rows = sorted((name, *values) for name, values in (_kept() | seen).items())
        body = "Every proof held when it was last run (`make campaign`).\n\n"
        print(f"wrote {write_page('campaign', 'Long proofs', body + markdown_table(('Proof', 'Seen', 'On'), rows))}")
    return code


def _today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


def _kept() -> dict[str, tuple[str, str]]:
    """The rows of the page as it is."""
    path = FOLDER / "campaign.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return {name: (figures, day) for name, figures, day in _ROW.findall(text)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
