"""Removal effects of the counted Markov chain, solved exactly. Source: docs/semantics.md, section 10.

Removing a touch c loses exactly the walks that come to c and convert. Let Q hold the probabilities from touch to touch,
k those from a touch straight to a conversion, and N = (I - Q)^-1: how often a walk at one touch comes to another. A
walk comes to c with probability visits_c / N_cc and converts from there with (N k)_c. What comes to a touch leaves it,
so visits_c is the count of arrows from c over that of paths; and with F = I - Q, each row times its touch's count,

    removal_effect_c = (F^-1 conversions)_c / ((F^-1)_cc * all conversions).

F holds whole numbers, and one factorization of it serves every touch. Nothing is simulated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.linalg import SuperLU, splu

READS = ("attribution_transitions",)

SCHEMA = pa.schema(
    [("level", pa.string()), ("touch", pa.string()), ("removal_effect", pa.float64()), ("credit_share", pa.float64())]
)
COLUMNS_AT_ONCE = 256
"""How many columns of the inverse stand in memory together."""


class Arrow(NamedTuple):
    """A row of `attribution_transitions` on one level."""

    from_touch: str | None
    to_touch: str | None
    is_converted: bool | None
    transition_count: int


def model(tables: Mapping[str, pa.Table]) -> pa.Table:
    """A row per level and touch, for the levels on which somebody converted."""
    levels: dict[str, list[Arrow]] = {}
    for row in tables["attribution_transitions"].to_pylist():
        levels.setdefault(row["level"], []).append(Arrow(*(row[name] for name in Arrow._fields)))
    rows = []
    for level, arrows in sorted(levels.items()):
        if any(arrow.is_converted for arrow in arrows):
            effects = removal_effects(arrows)
            total = math.fsum(effects.values())  # at least 1: every conversion passes a touch
            rows += [(level, touch, effect, effect / total) for touch, effect in effects.items()]
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA)


def removal_effects(arrows: Sequence[Arrow]) -> dict[str, float]:
    """The removal effect of each touch, by name; at least one of the arrows is a conversion."""
    touches = sorted({arrow.to_touch for arrow in arrows if arrow.to_touch is not None})
    place = {touch: index for index, touch in enumerate(touches)}
    conversions = np.zeros(len(place))
    cells = []  # (row, column, value) of F
    for from_touch, to_touch, is_converted, count in arrows:
        if from_touch is None:
            continue
        row = place[from_touch]
        cells.append((row, row, count))
        if to_touch is not None:
            cells.append((row, place[to_touch], -count))
        elif is_converted:
            conversions[row] += count
    rows, columns, values = zip(*sorted(cells), strict=True)
    flow = coo_array((np.array(values, dtype=float), (rows, columns)), shape=(len(place), len(place)))
    factors = splu(flow.tocsc())  # sums what falls into one cell
    lost = factors.solve(conversions) / _diagonal_of_inverse(factors, len(place))
    effects = np.clip(lost / conversions.sum(), 0, 1)  # rounding alone leads out of it
    return {touch: float(effects[index]) for touch, index in place.items()}


def _diagonal_of_inverse(factors: SuperLU, size: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    diagonal = np.empty(size)
    for begin in range(0, size, COLUMNS_AT_ONCE):
        some = np.arange(begin, min(begin + COLUMNS_AT_ONCE, size))
        units = np.zeros((size, len(some)))
        units[some, some - begin] = 1
        diagonal[some] = factors.solve(units)[some, some - begin]
    return diagonal
