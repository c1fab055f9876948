"""Long sending shows how far it is: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

from ingest.progress import show_progress
from schemas.settings import PROJECT_DIR


def run_on_a_terminal(*arguments: str) -> tuple[str, str]:
    """Standard output, and what a person sees on standard error, of a `journeys` command."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "journeys", *arguments]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, cwd=PROJECT_DIR, stdout=subprocess.PIPE, stderr=slave, env=environment) as process:
        os.close(slave)
        seen = b""
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:  # Linux says so when the last writer has closed the terminal
                break
            if not part:
                break
            seen += part
        assert process.stdout is not None
        output = process.stdout.read().decode()
    os.close(master)
    assert process.returncode == 0, seen.decode()
    return output, seen.decode()


def test_produce_and_replay_show_a_bar_on_a_terminal_and_keep_standard_output_clean(tmp_path: Path):
    (tmp_path / "drop").mkdir()
    to = ("--to", f"file://{tmp_path}/drop")
    output, seen = run_on_a_terminal(
        "--home", str(tmp_path), "produce", *to, "--customers", "5", "--days", "2", "--json"
    )
    assert output.startswith('{"record_count": ') and output.count("\n") == 1
    assert "sending" in seen and "━" in seen
    (tmp_path / "in.csv").write_text("ts,who\n2026-01-05 10:00:00,a\n")
    (tmp_path / "m.yml").write_text(
        "input: {format: csv}\ntouchpoints:\n  - {channel: \"'web'\", event_type: \"'page_viewed'\", occurred_at: ts}\n"
    )
    output, seen = run_on_a_terminal(
        "--home", str(tmp_path), "replay", str(tmp_path / "in.csv"), "--mapping", str(tmp_path / "m.yml"), *to
    )
    assert output == "sent 1 touchpoints; 0 of their ids had landed before\n"
    assert "sending in.csv" in seen and "1/1" in seen


def test_without_a_terminal_there_are_plain_log_lines_of_counts(caplog, monkeypatch):
    monkeypatch.setattr("ingest.progress.LOG_SECONDS", 0.0)
    with caplog.at_level(logging.INFO, "ingest.progress"):
        assert list(show_progress(iter(range(1200)), 1200, "sending")) == list(range(1200))
    assert caplog.messages[:2] == ["sending: 500 of 1200", "sending: 1000 of 1200"]
    assert caplog.messages[2].startswith("sending: 1200 of 1200 in ")
