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
        ("exclude:\n  - {name: x, when: \"occurred_at = 'x'\"}", "does not fit the columns: Conversion Error"),
        ("conversion: \"amount > 'much'\"", "does not fit the columns: Conversion Error"),
        ("conversion: channel = 1", "does not fit the columns: Conversion Error"),
        ("earliest_occurred_at: 2026-13-01", "not a value: month must be in 1..12"),
    ],
)
def test_a_rule_of_another_type_and_a_day_that_is_none_are_told_before_anything_runs(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^j\.yml") as caught:
        parse_config(text, source="j.yml")
    assert message in str(caught.value)


RFM = "recency_days: [1, 2, 3, 4], frequency: [4, 5, 6, 7], monetary: [8, 9, 10, 11]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("churn_days: 90\n\nchurn_days: 180", r"j.yml:3: the key stands twice, first on line 1 \(got 'churn_days'\)"),
        ("session_timeouts:\n  web: 1 hour\n  email: 1 day\n  web: 2 hours", "j.yml:4: .*first on line 2 .*'web'"),
        ("currency_rates: {EUR: 1.08, EUR: 1.1}", "j.yml:1: the key stands twice, first on line 1 .*'EUR'"),
        ('exclude:\n  - {name: x, when: "true"}\n  - name: y\n    when: "true"\n    when: "false"', "j.yml:5: .*'wh"),
        ("reporting_timezone: localtime", "j.yml:1: reporting_timezone: .*IANA time zone.*'localtime'"),
        (
            'friction:\n  - {signal: a, when: "true"}\n  - {signal: b, when: "true"}\n  - {signal: a, when: "false"}',
            r"j.yml:4 \(friction\): stands twice \(got 'a'\).*OR",
        ),
        (
            "retention:\n  - {start_event: first_order, return_event: any}\n"
            "  - {return_event: any, start_event: first_order}",
            r"j.yml:3 \(retention\): stands twice \(got 'first_order, any'\)",
        ),
        ("churn_days: 90\nrfm:\n  recency_days: [30, 90, 90, 365]", "j.yml:3: rfm.recency_days: .*ascending.*90, 90"),
        (f"rfm: {{{RFM.replace('5, 6', '6, 5')}}}", "j.yml:1: rfm.frequency: .*ascending order"),
        (f"rfm: {{{RFM.replace('9, 10', '9.5, 9.25')}}}", "j.yml:1: rfm.monetary: .*ascending order"),
        ("currency_rates:\n  EUR: 1.08\n  JPY: 1e30", "j.yml:3: currency_rates.JPY: .*to 9999999999.99999999 .*'1e30'"),
        ("currency_rates: {JPY: 0.000000004}", "j.yml:1: currency_rates.JPY: .*must be a rate from 0.00000001"),
        ("currency_rates: {JPY: 0}", "j.yml:1: currency_rates.JPY: .*must be a rate from"),
        ("currency_rates: {JPY: -1}", "j.yml:1: currency_rates.JPY: .*must be a rate from"),
        ("currency_rates: {JPY: .inf}", "j.yml:1: currency_rates.JPY: .*finite"),
    ],
)  # fmt: skip
def test_what_would_count_twice_not_at_all_or_wrongly_is_refused_by_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}"):
        parse_config(text, source="j.yml")


def test_a_segments_name_may_stand_in_several_rules_and_the_ends_of_the_rates_are_taken() -> None:
    rules = 'segments:\n  - {segment: a, when: "true"}\n  - {segment: a, when: "false"}\n'
    config = parse_config(f"{rules}currency_rates: {{JPY: 0.00000001, KWD: '9999999999.99999999'}}", source="j.yml")
    assert [rule.segment for rule in config.segments] == ["a", "a"]
    assert [f"{rate:f}" for rate in config.currency_rates.values()] == ["0.00000001", "9999999999.99999999"]


def test_an_alias_in_a_loop_is_read_to_its_end() -> None:
    with pytest.raises(ConfigurationError, match="^j.yml:1: a: Extra inputs"):
        parse_config("a: &x [*x, {b: *x}]", source="j.yml")


@pytest.mark.parametrize(
    "rule",
    [
        "cast(campaign as integer) > 1",
        "cast(properties ->> 'visits' as integer) > 1",
        "strptime(page_path, '/%Y') < occurred_at",
        "occurred_at between '2026-01-01' and '2026-02-01'",
        "case when channel = 'store' then cast(store_id as integer) > 100 end",
        "amount > '9.99'",
        "null",
    ],
)
def test_a_rule_that_fits_the_columns_is_left_to_the_data(rule: str) -> None:
    text = yaml.safe_dump({"exclude": [{"name": "x", "when": rule}]})
    assert len(parse_config(text, source="j.yml").exclude) == 1


def test_rules_know_their_lines_which_make_no_two_configurations_different() -> None:
    text = "conversion: is_order_conversion\nfriction:\n  - {signal: odd, when: 'amount < 0'}\n"
    config, lower = parse_config(text, source="j.yml"), parse_config("\n" + text, source="k.yml")
    places = [rule.where for rule in config.rules if rule.section in ("friction", "conversion")]
    assert places == ["j.yml:3 (friction: odd)", "j.yml:1 (conversion)"]
    assert (config, config.definition_hash) == (lower, lower.definition_hash)
    assert config != parse_config(text.replace("0", "1"), source="j.yml")
