"""The funnel in plain Python, written from docs/funnels.md: it tries every chain there is. Only for small histories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product

Chain = tuple["Touch", ...]


@dataclass(frozen=True)
class Touch:
    """One touchpoint: when, the steps it serves, whether it is an exclusion, the value that `hold` looks at."""

    id: int
    time: int
    steps: frozenset[int]
    is_excluded: bool = False
    held: str | None = ""


@dataclass(frozen=True)
class Options:
    """What a funnel asks for; times are whole numbers."""

    step_count: int
    window: int
    mode: str = "default"
    counting: str = "unique"
    exclude_after: int = 1
    exclude_before: int | None = None
    since: int | None = None
    until: int | None = None
    as_of: int = 10**9

    @property
    def excluded_until(self) -> int:
        return self.step_count if self.exclude_before is None else self.exclude_before


@dataclass(frozen=True, order=True)
class Outcome:
    """How far one attempt came, and when it reached each step."""

    level: int
    times: tuple[int, ...]
    is_open: bool = field(compare=False, default=False)
    ended_at: int = field(compare=False, default=0)
    held: str = field(compare=False, default="")


def outcomes(touches: Sequence[Touch], options: Options) -> list[Outcome]:
    """The counted attempts of one customer, in order of time."""
    histories: dict[str, list[Touch]] = {}
    for touch in touches:
        if touch.held is not None and (options.since is None or touch.time >= options.since):
            histories.setdefault(touch.held, []).append(touch)
    found = [
        Outcome(one.level, one.times, one.is_open, one.ended_at, held)
        for held, history in histories.items()
        for one in _of_history(history, options)
    ]
    if options.counting == "unique" and found:
        # The furthest; of equals the one that was there first, that began last, of the smallest value.
        most = max(one.level for one in found)
        found = [one for one in found if one.level == most]
        first = min(one.times[-1] for one in found)
        found = [one for one in found if one.times[-1] == first]
        latest = max(one.times for one in found)
        found = [min((one for one in found if one.times == latest), key=lambda one: one.held)]
    return sorted(found, key=lambda one: (one.times, one.held))


def _of_history(history: list[Touch], options: Options) -> Iterator[Outcome]:
    if options.counting == "unique":
        if one := _attempt(history, options, last_start=max(_starts(history, options), default=None)):
            yield one
        return
    rest = history
    while starts := _starts(rest, options):
        last_start = starts[0]
        for start in starts[1:]:
            if start > last_start + options.window:
                break
            last_start = start
        reach = [touch for touch in rest if starts[0] <= touch.time <= last_start + options.window]
        one = _attempt(reach, options, last_start=last_start)
        assert one is not None
        yield one
        rest = [touch for touch in rest if touch.time > one.ended_at]


def _starts(history: list[Touch], options: Options) -> list[int]:
    return sorted({touch.time for touch in history if _is_start(touch, options)})


def _is_start(touch: Touch, options: Options) -> bool:
    serves = bool(touch.steps) if options.mode == "unordered" else 1 in touch.steps
    return serves and (options.until is None or touch.time < options.until)


def _attempt(history: list[Touch], options: Options, last_start: int | None) -> Outcome | None:
    if last_start is None:
        return None
    reached = _unordered(history, options) if options.mode == "unordered" else _ordered(history, options)
    broken = _break(history, reached, options)
    # Of two equal entries the second breaks, the first has reached the step.
    before = {step: times for step, times in reached.items() if broken is None or (times[-1], step) <= broken}
    level = max(before)
    times = before[level]
    is_done = level == options.step_count
    ends = [last_start + options.window] + ([broken[0]] if broken else [])
    return Outcome(
        level,
        times,
        is_open=not is_done and broken is None and last_start + options.window >= options.as_of,
        ended_at=times[-1] if is_done else min(ends),
    )


def _ordered(history: list[Touch], options: Options) -> dict[int, tuple[int, ...]]:
    """Per step that a chain came to: the times of the latest of the chains that were there first."""
    reached = {}
    chains: list[Chain] = [(touch,) for touch in history if _is_start(touch, options)]
    step = 1
    while chains:
        first = min(chain[-1].time for chain in chains)
        candidates = [tuple(touch.time for touch in chain) for chain in chains if chain[-1].time == first]
        latest = max(candidates)
        if options.mode != "strict_once":
            # Not only the latest start: every step of it is the latest that any such chain has.
            assert all(latest[at] >= times[at] for times in candidates for at in range(step))
        reached[step] = latest
        step += 1
        chains = [
            (*chain, touch)
            for chain in chains
            for touch in history
            if step <= options.step_count and step in touch.steps and _may_follow(chain, touch, step, history, options)
        ]
    return reached


def _may_follow(chain: Chain, touch: Touch, step: int, history: list[Touch], options: Options) -> bool:
    last = chain[-1]
    if touch.time < last.time or touch.time - chain[0].time > options.window:
        return False
    if options.mode == "strict_increase" and touch.time == last.time:
        return False
    if options.mode == "strict_once" and touch in chain:
        return False
    if options.exclude_after < step <= options.excluded_until:
        since = chain[options.exclude_after - 1].time
        return not any(other.is_excluded and since < other.time < touch.time for other in history)
    return True


def _unordered(history: list[Touch], options: Options) -> dict[int, tuple[int, ...]]:
    """Per number of different steps done within the window: from the latest start, the first touchpoint of each."""
    reached = {}
    for count in range(1, options.step_count + 1):
        found = set()
        for steps in combinations(range(1, options.step_count + 1), count):
            serving = [sorted({touch.time for touch in history if step in touch.steps}) for step in steps]
            for times in product(*serving):
                start, end = min(times), max(times)
                if (
                    end - start <= options.window
                    and (options.until is None or start < options.until)
                    and not any(touch.is_excluded and start < touch.time < end for touch in history)
                ):
                    found.add(tuple(sorted(times)))
        if found:
            first = min(times[-1] for times in found)
            latest = max(times[0] for times in found if times[-1] == first)
            # The earliest touchpoints after that start: no step could be sooner.
            reached[count] = min(times for times in found if times[-1] == first and times[0] == latest)
    return reached


def _break(history: list[Touch], reached: dict[int, tuple[int, ...]], options: Options) -> tuple[int, int] | None:
    """Where a strict mode stops: the (time, step) of the entry, 0 for a touchpoint that serves no step."""
    if options.mode not in ("strict_order", "strict_deduplication"):
        return None
    entries = sorted(
        (touch.time, step) for touch in history for step in touch.steps or {0} if step != 1 or _is_start(touch, options)
    )
    seen: list[tuple[int, int]] = []
    first = {step: (times[-1], step) for step, times in reached.items()}
    for entry in entries:
        _, step = entry
        started = first[1] in seen
        if options.mode == "strict_deduplication":
            if step > 1 and step in first and first[step] in seen:
                return entry
        elif started and (step == 0 or (step > 1 and (step - 1 not in first or first[step - 1] not in seen))):
            return entry
        seen.append(entry)
    return None
