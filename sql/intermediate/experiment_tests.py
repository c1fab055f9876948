"""The two-sided two-proportion z-test of each variant against its control, with the pooled proportion.

z = (p_v - p_c) / sqrt(p (1 - p) (1 / n_v + 1 / n_c)), with p that of both together; z squared is Pearson's chi-square
of the 2 x 2 table. The normal distribution's tail is what SQL lacks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import pyarrow as pa

READS = ("experiment_counts",)


def model(tables: Mapping[str, pa.Table]) -> pa.Table:
    """Columns out: experiment, variant, p_value. Grain: variant. NULL for controls and where nothing is compared."""
    rows = sorted(tables["experiment_counts"].to_pylist(), key=lambda row: (row["experiment"], row["variant"]))
    controls = {row["experiment"]: row for row in rows if row["is_control"]}
    p_values: list[float | None] = []
    for row in rows:
        control = controls.get(row["experiment"])
        if control is None or row["is_control"]:
            p_values.append(None)
        else:
            p_values.append(two_proportion_p_value(*_outcome(row), *_outcome(control)))
    return pa.table(
        {
            "experiment": pa.array([row["experiment"] for row in rows], pa.string()),
            "variant": pa.array([row["variant"] for row in rows], pa.string()),
            "p_value": pa.array(p_values, pa.float64()),
        }
    )


def _outcome(row: Mapping[str, int]) -> tuple[int, int]:
    return row["converted_count"], row["customer_count"]


def two_proportion_p_value(successes: int, trials: int, base_successes: int, base_trials: int) -> float | None:
    """The p-value; None without trials on a side, and where all or none succeeded."""
    pooled_successes, pooled_trials = successes + base_successes, trials + base_trials
    if not trials or not base_trials or pooled_successes in (0, pooled_trials):
        return None
    pooled = pooled_successes / pooled_trials
    error = math.sqrt(pooled * (1 - pooled) * (1 / trials + 1 / base_trials))
    z = (successes / trials - base_successes / base_trials) / error
    return math.erfc(abs(z) / math.sqrt(2))  # twice the upper tail
