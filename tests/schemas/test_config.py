"""journey.yml: durations, rules and the errors a mistake gets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.config import TOUCHPOINT_COLUMNS, load_config, parse_config
from schemas.errors import ConfigurationError
from schemas.expressions import check_expression
from schemas.settings import PROJECT_DIR


def test_the_shipped_file_holds_the_published_defaults() -> None:
    config = load_config(PROJECT_DIR / "journey.yml")
    assert config.reporting_timezone == "UTC"
    assert config.week_start == 1
    assert config.max_links_per_identifier == 50
    assert config.journey_timeout == timedelta(days=30)
    assert config.session_timeout == {
        "web": timedelta(minutes=30),
        "email": timedelta(hours=24),
        "store": timedelta(hours=4),
        "support": timedelta(hours=72),
    }
    assert config.earliest_occurred_at == datetime(1990, 1, 1, tzinfo=UTC)
    assert [rule.stage for rule in config.stage_rules] == [
        "retention",
        "advocacy",
        "purchase",
        "consideration",
        "onboarding",
        "retention",
        "awareness",
    ]


def test_keys_left_out_take_the_shipped_values() -> None:
    assert parse_config("journey_timeout: 7 days", source="j.yml").journey_timeout == timedelta(days=7)
    assert parse_config("", source="j.yml") == load_config(PROJECT_DIR / "journey.yml")


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-01-01", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T00:00:00-05:00", datetime(2026, 1, 1, 5, tzinfo=UTC)),
        ("'2026-01-01T00:00:00'", datetime(2026, 1, 1, tzinfo=UTC)),
        ("'2026-01-01T00:00:00+02:00'", datetime(2025, 12, 31, 22, tzinfo=UTC)),
    ],
)
def test_the_earliest_time_is_an_instant_in_utc(text: str, utc: datetime) -> None:
    earliest = parse_config(f"earliest_occurred_at: {text}", source="j.yml").earliest_occurred_at
    assert (earliest, earliest.tzinfo) == (utc, UTC)


def test_the_definition_hash_changes_with_any_value() -> None:
    base = parse_config("", source="j.yml").definition_hash
    assert parse_config("", source="elsewhere.yml").definition_hash == base
    assert parse_config("churn_days: 181", source="j.yml").definition_hash != base


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("journey_timeout: 30", "j.yml:1: journey_timeout: .*like '30 minutes'"),
        ("\njourney_timeouts: 30 days", "j.yml:2: journey_timeouts: .*'30 days'"),
        ("a: [", "j.yml:1: not valid YAML"),
        ("- 1", "must hold keys and values"),
        ("reporting_timezone: Mars", "IANA time zone.*'Mars'"),
        ("currency_rates: {eur: 1}", "currency_rates"),
        ("stages: [{stage: purchase}]", "these six in order"),
        ("blocked_identifiers: {cookie: [x]}", "unknown type 'cookie'"),
        ("journey_timeout: 99999999999999 days", "longer than anything"),
    ],
)
def test_a_mistake_names_file_line_value_and_remedy(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_config(text, source="j.yml")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("event_typo = 'x'", "unknown column 'event_typo'.*Known columns"),
        ("random() > 0.5", "function 'random' is not allowed"),
        ("now() > occurred_at", "function 'now' is not allowed"),
        ("current_date > occurred_at", "is not allowed"),
        ("event_type in (select 1)", "subquery is not allowed|select is not allowed"),
        ("read_text('/etc/passwd') is null", "function 'read_text' is not allowed"),
        ("event_type in (from read_csv('/etc/passwd'))", "is not allowed"),
        ("getenv('HOME') = 'x'", "function 'getenv' is not allowed"),
        ("count(*) > 1", "is not allowed"),
        ("sum(amount) over () > 1", "is not allowed"),
        ("true; drop table x", "exactly one expression"),
        ("true from x", "only an expression"),
        ("true, false", "exactly one expression"),
        ("a b c", "not valid SQL"),
        ("$1 = 2", "is not allowed"),
        ("nextval('s') = 1", "is not allowed"),
        ("x.event_type = 'a'", "unknown column"),
    ],
)
def test_a_rule_that_could_do_harm_or_change_is_refused_by_line_and_name(rule: str, message: str) -> None:
    text = yaml.safe_dump({"exclude": [{"name": "bots", "when": rule}]})
    with pytest.raises(ConfigurationError, match=rf"j\.yml:3 \(exclude: bots\): .*({message})"):
        parse_config(text, source="j.yml")


def test_a_rule_may_use_columns_functions_and_json() -> None:
    rule = "lower(source) like '%bot%' and properties ->> 'ua' = 'x' and occurred_at > timestamp '2024-01-01'"
    text = yaml.safe_dump({"exclude": [{"name": "bots", "when": rule}]})
    assert "LOWER(source)" in parse_config(text, source="j.yml").exclude[0].when


def test_order_columns_are_known_only_where_orders_are() -> None:
    text = yaml.safe_dump({"exclude": [{"name": "x", "when": "customer_order_index > 1"}]})
    with pytest.raises(ConfigurationError, match="unknown column 'customer_order_index'"):
        parse_config(text, source="j.yml")


def test_an_unreadable_file_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read.*JOURNEYS_CONFIG"):
        load_config(tmp_path / "none.yml")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: raw.decode("latin-1")))
def test_no_text_brings_anything_but_a_configuration_error(text: str) -> None:
    try:
        parse_config(text, source="j.yml")
    except ConfigurationError:
        pass


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            "event_type channel ( ) = 'a' and or not in select from read_csv now 1 , case when then end * + :: "
            'json amount [ ] { } -> ->> like is null between cast as ; -- /* */ . "x" interval over filter'.split()
        ),
        max_size=15,
    ).map(" ".join)
)
def test_no_expression_brings_anything_but_a_configuration_error(rule: str) -> None:
    try:
        check_expression(rule, columns=TOUCHPOINT_COLUMNS, where="j.yml:1")
    except ConfigurationError:
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('stage_rules: [{stage: purchase, when: "event_type"}]', "must be true or false, not VARCHAR"),
        ('exclude:\n  - {name: x, when: "amount + 1"}', "must be true or false, not DECIMAL"),
        ("exclude:\n  - {name: x, when: \"regexp_matches(event_type, '(')\"}", "does not fit the columns"),
        ("conversion: \"'abc'\"", "must be true or false, not VARCHAR"),
        ("earliest_occurred_at: 2026-13-01", "not a value: month must be in 1..12"),
    ],
)
def test_a_rule_of_another_type_and_a_day_that_is_none_are_told_before_anything_runs(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^j\.yml") as caught:
        parse_config(text, source="j.yml")
    assert message in str(caught.value)
