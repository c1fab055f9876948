"""A rule of journey.yml that only the data break: the night names its line, and keeps what was there before."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest

from schemas.errors import BuildError, ConfigurationError

CAMPAIGNS = ["seven", "7", None]
NUMBER = "cast(campaign as integer) > 1"
MESSAGE = (
    r"fails on the data: Conversion Error: Could not convert string 'seven' to INT32 .*\(got 'CAST\(campaign AS INT"
)


@pytest.fixture
def landed(home: Any) -> Any:
    """Three page views: of campaigns `seven` and `7`, and of none."""
    lines = [
        json.dumps(
            {
                "event_id": f"00000000-0000-4000-8000-00000000000{number}",
                "schema_version": 1,
                "channel": "web",
                "event_type": "page_viewed",
                "occurred_at": f"2026-01-05T10:0{number}:00Z",
                "received_at": f"2026-01-05T10:0{number}:00Z",
                "identifiers": {"customer_id": "c1"},
                "properties": {"page_path": "/"},
                **({"campaign": campaign} if campaign else {}),
            }
        )
        for number, campaign in enumerate(CAMPAIGNS)
    ]
    (home.drop / "journeys.web.v1").mkdir()
    (home.drop / "journeys.web.v1" / "views.ndjson").write_text("".join(f"{line}\n" for line in lines))
    home.land()
    return home


def rows(home: Any, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(home.settings.warehouse_path), read_only=True) as con:
        return con.execute(sql).fetchall()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (
            f'exclude:\n  - {{name: known, when: "campaign = \'x\'"}}\n  - {{name: big, when: "{NUMBER}"}}\n',
            "3 (exclude: big)",
        ),
        (f'stage_rules:\n  - {{stage: purchase, when: "{NUMBER}"}}\n', "2 (stage_rules: purchase)"),
        (
            f'stage_rules:\n  - {{stage: advocacy, scope: customer, when: "{NUMBER}"}}\n',
            "2 (stage_rules: advocacy)",
        ),
        (f'friction:\n  - {{signal: odd, when: "{NUMBER}"}}\n', "2 (friction: odd)"),
        (f'segments:\n  - {{segment: big, when: "{NUMBER}"}}\n', "2 (segments: big)"),
        (f"\nconversion: {NUMBER}\n", "2 (conversion)"),
    ],
    ids=["exclude", "stage", "lifecycle stage", "friction", "segment", "conversion"],
)
def test_a_rule_that_one_value_breaks_is_told_by_line_and_keeps_nothing(landed: Any, text: str, place: str) -> None:
    landed.silver()
    before = rows(landed, "from touchpoints order by event_id")
    landed.config.write_text(text)
    with pytest.raises(ConfigurationError, match=MESSAGE) as caught:
        landed.silver("r2")
    assert caught.value.where == f"{landed.config}:{place}"
    assert "try_cast" in str(caught.value)
    assert rows(landed, "from touchpoints order by event_id") == before
    assert rows(landed, "select run_id from run_steps") == [("r1",)]


def test_a_rule_is_blamed_as_the_build_reads_it_after_the_rules_before_it(landed: Any) -> None:
    landed.config.write_text(
        "stage_rules:\n"
        "  - {stage: awareness, when: \"campaign = 'seven'\"}\n"
        f'  - {{stage: purchase, when: "{NUMBER}"}}\n'
    )
    landed.silver()
    assert rows(landed, "select campaign, stage from touchpoints order by occurred_at") == [
        ("seven", "awareness"),
        ("7", "purchase"),
        (None, None),
    ]
    landed.config.write_text(landed.config.read_text() + f'friction:\n  - {{signal: odd, when: "{NUMBER}"}}\n')
    with pytest.raises(ConfigurationError, match=r"journey\.yml:5 \(friction: odd\): fails on the data"):
        landed.silver("r2")


def test_a_step_that_fails_for_another_reason_is_no_rules_fault(landed: Any) -> None:
    landed.silver()
    with duckdb.connect(str(landed.settings.warehouse_path)) as con:
        con.execute("update bronze_touchpoints set identifiers = 'not JSON'")
    landed.config.write_text(f'friction:\n  - {{signal: odd, when: "try_{NUMBER}"}}\n')
    with pytest.raises(BuildError, match="silver of run r2: the step failed: Invalid Input Error: Malformed JSON"):
        landed.silver("r2")
