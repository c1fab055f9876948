"""The funnel: its SQL in sql/macros, filled in for the published macros or for the expressions of `journeys funnel`.

The macros take names: event types as steps, columns to hold or break down by. The command also takes SQL expressions,
which no macro can: it makes macros of its own from the same text. Everything else is said once, in the SQL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import sqlglot
from sqlglot import exp

from schemas.errors import UsageError
from schemas.events import EVENT_TYPES
from schemas.expressions import check_expression
from schemas.settings import PROJECT_DIR
from transforms.event_sql import quoted
from warehouse.models import load_description

SQL_DIR = PROJECT_DIR / "sql"
MOST_STEPS = 32
"""As many as ClickHouse's windowFunnel takes."""

COLUMNS = (
    "event_type", "event_name", "channel", "source", "medium", "campaign", "page_path", "product_id", "store_id",
    "order_id", "ticket_id", "session_id", "journey_id", "stage", "lifecycle_stage", "experiment", "variant",
    "coupon_code", "error_code", "author", "currency", "customer_order_index", "csat_rating", "nps_score",
)  # fmt: skip
"""Columns that the macros' `hold` and `breakdown` may name; the command takes any, and expressions."""

_CUSTOM = "custom:"
_NAMED = re.compile(r"([\w -]+): (.+)", re.DOTALL)
_CHAINS = """\
chains_of_{step} as (
    select chain.history, {times}, entry.occurred_at as time_{step}
    from (
        select
            *,
            case when mode = 'strict_increase' then make_timestamptz(epoch_us(occurred_at) - 1) else occurred_at end
                as latest_before
        from guarded_entries
        where step = {step} and len(steps) >= {step}
    ) as entry
    asof inner join chains_of_{previous} as chain
        on chain.history = entry.history and chain.time_{previous} <= entry.latest_before
    where
        epoch_us(entry.occurred_at) - epoch_us(chain.time_1) <= (select window_us from options)
        and (
            entry.excluded_at is null
            or exclude_after >= {step}
            or coalesce(exclude_before, len(steps)) < {step}
            or entry.excluded_at <= [{times}][exclude_after]
        )
),
"""
_FIRSTS = """\
    select
        history, {step} as step, case when counting = 'total' then time_1 end as chain_started_at,
        min(time_{step}) as occurred_at,
        [{first_times}] as times
    from chains_of_{step}
    group by history, case when counting = 'total' then time_1 end
    union all
"""


@dataclass(frozen=True)
class Funnel:
    """What `journeys funnel` was asked: names or expressions as they were written, checked when the SQL is made."""

    steps: Sequence[str]
    within: str | None = None
    mode: str = "default"
    counting: str = "unique"
    hold: str | None = None
    exclude: Sequence[str] = ()
    exclude_after: int = 1
    exclude_before: int | None = None
    breakdown: str | None = None
    breakdown_at: str = "first_touch"
    since: str | None = None
    until: str | None = None
    touches: str = "inbound"

    def macros(self, sql_dir: Path = SQL_DIR) -> list[str]:
        """The statements that must run before `select`; none where the published macros will do.

        Raises ConfigurationError for an expression that is not allowed, and UsageError.
        """
        return (
            _fill(sql_dir, self._parts(sql_dir), "temp macro", "_of_expressions")
            if self._has_expressions(sql_dir)
            else []
        )

    def select(self, columns: str = "*", *, attempts: bool = False, sql_dir: Path = SQL_DIR) -> str:
        """The query: one row per step, or with `attempts` per attempt and step."""
        name = "funnel_attempts" if attempts else "funnel"
        suffix = "_of_expressions" if self._has_expressions(sql_dir) else ""
        lines = [f"    [{', '.join(quoted(_label(step)) for step in self.steps)}]"]
        given: Mapping[str, str | None] = {
            "within": _cast(self.within, "interval"),
            "mode": quoted(self.mode),
            "counting": quoted(self.counting),
            "hold": _text(self.hold),
            "exclude": f"[{', '.join(quoted(item) for item in self.exclude)}]",
            "exclude_after": str(self.exclude_after),
            "exclude_before": None if self.exclude_before is None else str(self.exclude_before),
            "breakdown": _text(self.breakdown),
            "breakdown_at": quoted(self.breakdown_at),
            "since": _cast(self.since, "timestamp"),
            "until": _cast(self.until, "timestamp"),
            "touches": quoted(self.touches),
        }
        usual = Funnel(steps=())
        for option, value in given.items():
            if value is not None and getattr(self, option) != getattr(usual, option):
                lines.append(f"    {option} := {value}")
        order = "\norder by customer_key, started_at, held_value, step" if attempts else ""
        return f"select {columns}\nfrom {name}{suffix}(\n" + ",\n".join(lines) + f"\n){order}"

    def shown_columns(self) -> str:
        """The columns of `funnel` that a terminal has room for."""
        shown = (
            "step, name, reached_count, conversion_from_first, conversion_from_previous, open_count, "
            "median_seconds_from_previous, median_seconds_from_first, revenue"
        )
        return shown if self.breakdown is None else f"breakdown_value, {shown}"

    def _has_expressions(self, sql_dir: Path) -> bool:
        columns = _touchpoint_columns(sql_dir)
        named = all(_is_event_type(text, columns) for text in [*self.steps, *self.exclude])
        return not (named and all(column is None or column in COLUMNS for column in (self.hold, self.breakdown)))

    def _parts(self, sql_dir: Path) -> dict[str, str]:
        columns = _touchpoint_columns(sql_dir)
        if not 1 <= len(self.steps) <= MOST_STEPS:
            raise UsageError(f"a funnel has 1 to {MOST_STEPS} steps", where="--step", value=len(self.steps))
        steps = [_condition(text, "--step", columns) for text in self.steps]
        exclude = [_condition(text, "--exclude", columns) for text in self.exclude]
        cases = " ".join(f"when {number} then {condition}" for number, condition in enumerate(steps, 1))
        return {
            "matches": f"case step_names.step {cases} end",
            "matches_any": _any_of(steps),
            "excluded": _any_of(exclude),
            "held": _value(self.hold, "--hold", columns) or "''",
            "breakdown_value": _value(self.breakdown, "--breakdown", columns) or "null",
            "columns": f"[{', '.join(quoted(text) for text in (self.hold, self.breakdown) if text)}]",
            "orders_need_ids": "true",
            "is_once_apart": "(mode = 'strict_once')",
            **_steps(len(self.steps)),
        }


def macros(sql_dir: Path = SQL_DIR) -> list[str]:
    """The statements that make the published `funnel_attempts` and `funnel`."""
    values = " ".join(f"when {quoted(name)} then cast(touchpoint.{name} as varchar)" for name in COLUMNS)
    parts = {
        "matches": "touchpoint.event_type = split_part(step_names.name, ':', 1) and ("
        "not contains(array_to_string(steps, ''), ':') or not contains(step_names.name, ':')"
        " or touchpoint.event_name = substring(step_names.name, 8))",
        "matches_any": "list_contains(steps, touchpoint.event_type) or "
        "coalesce(list_contains(steps, 'custom:' || touchpoint.event_name), false)",
        "excluded": "list_contains(exclude, touchpoint.event_type) or "
        "coalesce(list_contains(exclude, 'custom:' || touchpoint.event_name), false)",
        "held": f"case hold {values} else '' end",
        "breakdown_value": f"case breakdown {values} end",
        "columns": f"[{', '.join(quoted(name) for name in COLUMNS)}]",
        "orders_need_ids": "hold is not null",
        # Different event types share no touchpoint.
        "is_once_apart": "(mode = 'strict_once' and (len(list_distinct(steps)) < len(steps) "
        "or contains(array_to_string(steps, ' '), 'custom')))",
        **_steps(MOST_STEPS),
    }
    return _fill(sql_dir, parts, "macro")


def _fill(sql_dir: Path, parts: Mapping[str, str], kind: str, suffix: str = "") -> list[str]:
    statements = []
    for name in ("funnel_attempts", "funnel"):
        template = Template((sql_dir / "macros" / f"{name}.sql").read_text(encoding="utf-8"))
        own = {"kind": kind, "name": f"{name}{suffix}", "attempts": f"funnel_attempts{suffix}"}
        statements.append(template.substitute({**parts, **own}))
    return statements


def _steps(count: int) -> dict[str, str]:
    """What is said once per step from the second on."""
    chains, firsts = [], []
    for step in range(2, count + 1):
        times = ", ".join(f"chain.time_{number}" for number in range(1, step))
        first_times = ", ".join(f"min(time_{number})" for number in range(1, step + 1))
        chains.append(_CHAINS.format(step=step, previous=step - 1, times=times))
        firsts.append(_FIRSTS.format(step=step, first_times=first_times))
    return {"chains": "\n".join(chains), "firsts": "".join(firsts), "most_steps": str(count)}


def _touchpoint_columns(sql_dir: Path) -> list[str]:
    return [column.name for column in load_description(sql_dir / "silver" / "touchpoints.yml").columns]


def _is_event_type(text: str, columns: Sequence[str]) -> bool:
    return text.startswith(_CUSTOM) or (text in EVENT_TYPES and text not in columns)


def _label(step: str) -> str:
    """`NAME: EXPRESSION` is shown by its name."""
    named = None if step.startswith(_CUSTOM) else _NAMED.fullmatch(step)
    return named[1] if named else step


def _condition(text: str, where: str, columns: Sequence[str]) -> str:
    if text.startswith(_CUSTOM):
        name = quoted(text.removeprefix(_CUSTOM))
        return f"(touchpoint.event_type = 'custom' and touchpoint.event_name = {name})"
    if _is_event_type(text, columns):
        return f"(touchpoint.event_type = {quoted(text)})"
    if re.fullmatch(r"\w+", text) and text.lower() not in columns:
        raise UsageError(
            "neither an event type nor a column",
            where=where,
            value=text,
            remedy="docs/reference/events.md lists the event types; an event of your own is custom:NAME",
        )
    named = _NAMED.fullmatch(text)
    return _qualified(named[2] if named else text, where, columns)


def _value(text: str | None, where: str, columns: Sequence[str]) -> str | None:
    return None if text is None else f"cast({_qualified(text, where, columns)} as varchar)"


def _qualified(sql: str, where: str, columns: Sequence[str]) -> str:
    """The checked expression with its columns as `touchpoint.…`: a macro's parameter would hide a bare name."""
    tree = sqlglot.parse_one(check_expression(sql, columns=columns, where=where), dialect="duckdb")
    for column in tree.find_all(exp.Column):
        column.set("table", exp.to_identifier("touchpoint"))
    return f"({tree.sql(dialect='duckdb')})"


def _any_of(conditions: Sequence[str]) -> str:
    return " or ".join(f"coalesce({condition}, false)" for condition in conditions) or "false"


def _cast(text: str | None, kind: str) -> str | None:
    return None if text is None else f"cast({quoted(text)} as {kind})"


def _text(text: str | None) -> str | None:
    return None if text is None else quoted(text)
