"""Absorption of the chain in `state_transitions`: from each state, how likely and how far is the conversion?

With C the counts between states, N the diagonal of all counts that leave a state and c the counts into (converted),
the probability p solves (N - C) p = c. Steps are those of the journeys that convert: among them a state leads to
another with probability P(s, t) p(t) / p(s) (Doob's h-transform), so the mean m solves (N - C) (p m) = N p.
The matrix holds whole numbers, and the solve is direct: nothing is simulated, iterated or rounded on the way.

Source: Kemeny and Snell, Finite Markov Chains, chapter 3; docs/semantics.md, section 13.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from scipy.sparse import csc_array
from scipy.sparse.linalg import splu

READS = ("state_transitions",)

CONVERTED = "(converted)"

Counts = dict[tuple[str, str], int]


def model(tables: Mapping[str, pa.Table]) -> pa.Table:
    """One row per state that journeys leave: state, conversion_probability, mean_steps_to_conversion (or None).

    A state that never leads to the conversion has probability 0 and no mean, by reachability and not by rounding.
    """
    moves = tables["state_transitions"]
    names = zip(moves["from_state"].to_pylist(), moves["to_state"].to_pylist(), strict=True)
    counts = dict(sorted(zip(names, moves["transition_count"].to_pylist(), strict=True)))
    solved = _solve(counts, sorted(_leading_to_conversion(counts)))
    states = sorted({state for state, _ in counts})
    return pa.table(
        {
            "state": pa.array(states, pa.string()),
            "conversion_probability": pa.array([solved[s][0] if s in solved else 0.0 for s in states], pa.float64()),
            "mean_steps_to_conversion": pa.array([solved[s][1] if s in solved else None for s in states], pa.float64()),
        }
    )


def _leading_to_conversion(counts: Counts) -> set[str]:
    before = defaultdict(set)
    for state, following in counts:
        before[following].add(state)
    found: set[str] = set()
    waiting = [CONVERTED]
    while waiting:
        new = before[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def _solve(counts: Counts, states: list[str]) -> dict[str, tuple[float, float]]:
    """Probability and mean steps of each of `states`, all of which lead to the conversion."""
    if not states:
        return {}
    number = {state: index for index, state in enumerate(states)}
    leaving, converting = np.zeros(len(states)), np.zeros(len(states))
    entries: list[tuple[int, int, float]] = []
    for (state, following), count in counts.items():
        if state not in number:
            continue
        leaving[number[state]] += count
        if following == CONVERTED:
            converting[number[state]] += count
        elif following in number:
            entries.append((number[state], number[following], -count))
    entries += [(index, index, count) for index, count in enumerate(leaving.tolist())]
    rows, columns, values = zip(*entries, strict=True)
    # Entries of one place are added: a state that follows itself takes its count off the diagonal.
    solver = splu(csc_array((np.array(values, float), (rows, columns)), shape=(len(states), len(states))))
    probability = solver.solve(converting)
    steps = solver.solve(leaving * probability) / probability
    # Rounding may pass the limits by an ulp.
    results = zip(np.minimum(probability, 1.0).tolist(), np.maximum(steps, 1.0).tolist(), strict=True)
    return dict(zip(states, results, strict=True))
