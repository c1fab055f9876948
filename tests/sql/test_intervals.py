"""The prelude's intervals, held to published worked examples."""

from __future__ import annotations

import math

import duckdb
import pytest

from schemas.settings import PROJECT_DIR
from warehouse.models import create_prelude


def asked(*calls: str) -> tuple[float | None, ...]:
    con = duckdb.connect()
    create_prelude(con, PROJECT_DIR / "sql")
    [row] = con.execute(f"select {', '.join(calls)}").fetchall()
    return tuple(row)


# Newcombe 1998, Statistics in Medicine 17, 873-890: method 10, the hybrid score interval.
@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ("56, 70, 48, 80", 0.0524, 0.3339),
        ("9, 10, 3, 10", 0.1705, 0.8090),
        ("6, 7, 2, 7", 0.0582, 0.8062),
        ("5, 56, 0, 29", -0.0381, 0.1926),
        ("0, 10, 0, 20", -0.1611, 0.2775),
        ("0, 10, 0, 10", -0.2775, 0.2775),
        ("10, 10, 0, 20", 0.6791, 1.0),
        ("10, 10, 0, 10", 0.6075, 1.0),
    ],
)
def test_differences_of_proportions_have_the_published_interval(counts: str, low: float, high: float) -> None:
    assert asked(f"newcombe_low({counts})", f"newcombe_high({counts})") == pytest.approx((low, high), abs=5e-5)


def test_differences_without_trials_are_null() -> None:
    assert asked("newcombe_low(0, 0, 1, 2)", "newcombe_high(1, 2, 0, 0)") == (None, None)


def test_the_odds_ratio_adds_half_a_case_to_every_cell() -> None:
    ratio, low, high = asked(*(f"odds_ratio{bound}(12, 5, 30, 40)" for bound in ("", "_low", "_high")))
    assert ratio == pytest.approx((12.5 * 40.5) / (5.5 * 30.5))  # 3.018
    error = math.sqrt(1 / 12.5 + 1 / 5.5 + 1 / 30.5 + 1 / 40.5)  # 0.565
    assert (low, high) == pytest.approx(
        (3.0178837556 * math.exp(-1.96 * error), 3.0178837556 * math.exp(1.96 * error)), rel=1e-4
    )
    assert (low, high) == pytest.approx((0.9970566529, 9.1345083909))


def test_woolfs_interval_is_the_published_one() -> None:
    # R's ORCI: Woolf.CI(2, 14, 1, 11) adds nothing to the cells; half a case less in each gives the same here.
    cells = "2 - 0.5, 12 - 0.5, 1 - 0.5, 10 - 0.5"
    assert asked(f"odds_ratio_low({cells})", f"odds_ratio_high({cells})") == pytest.approx((0.1310604, 21.1946394))


@pytest.mark.parametrize("cells", ["0, 0, 3, 4", "3, 4, 0, 0", "0, 3, 0, 4", "3, 0, 4, 0", "0, 0, 0, 0"])
def test_an_empty_side_or_outcome_compares_nothing(cells: str) -> None:
    assert asked(f"odds_ratio({cells})", f"odds_ratio_low({cells})", f"odds_ratio_high({cells})") == (None,) * 3


def test_an_empty_cell_still_compares() -> None:
    ratio, low, high = asked("odds_ratio(0, 9, 5, 5)", "odds_ratio_low(0, 9, 5, 5)", "odds_ratio_high(0, 9, 5, 5)")
    assert ratio == pytest.approx(0.5 / 9.5)
    assert low is not None and high is not None
    assert low < 0.5 / 9.5 < high
