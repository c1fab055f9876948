"""Stages and friction: the rules of journey.yml as columns. Source: docs/semantics.md, section 5.

Two readings of one rule list: `stage` (the cycle; rules of scope customer are skipped) and `lifecycle_stage` (the
customer's life; rules of scope customer come first). Only inbound touchpoints have a stage.
"""

from __future__ import annotations

from collections.abc import Iterable

from schemas.config import Config, StageRule
from transforms.event_sql import quoted


def _first_match(rules: Iterable[StageRule]) -> str:
    branches = "\n".join(f"when coalesce({rule.when}, false) then {quoted(rule.stage)}" for rule in rules)
    return f"case when direction <> 'inbound' then null\n{branches} end" if branches else "null::varchar"


def stage_sql(config: Config) -> str:
    """SQL of `stage` over the touchpoint and order columns."""
    return _first_match(rule for rule in config.stage_rules if rule.scope == "journey")


def lifecycle_stage_sql(config: Config) -> str:
    """SQL of `lifecycle_stage` over the touchpoint and order columns."""
    return _first_match(sorted(config.stage_rules, key=lambda rule: rule.scope != "customer"))


def stage_index_sql(config: Config, stage: str) -> str:
    """SQL of the index (from 1) of the stage column `stage`."""
    branches = " ".join(
        f"when {quoted(definition.stage)} then {index}" for index, definition in enumerate(config.stages, 1)
    )
    return f"case {stage} {branches} end"


def pre_conversion_sql(config: Config, stage: str) -> str:
    """Condition: the stage column `stage` is a pre-conversion stage."""
    names = ", ".join(quoted(definition.stage) for definition in config.stages if definition.is_pre_conversion)
    return f"coalesce({stage} in ({names}), false)"


def friction_signals_sql(config: Config) -> str:
    """SQL of the list of friction signals that hold, in the order of journey.yml."""
    cases = ", ".join(
        f"case when coalesce({rule.when}, false) then {quoted(rule.signal)} end" for rule in config.friction
    )
    return f"list_filter([{cases}]::varchar[], lambda signal: signal is not null)"


def segment_sql(config: Config) -> str:
    """SQL of the rule segment over the columns of a first touch; NULL where no rule holds."""
    branches = " ".join(f"when coalesce({rule.when}, false) then {quoted(rule.segment)}" for rule in config.segments)
    return f"case {branches} end" if branches else "null::varchar"
