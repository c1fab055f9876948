"""Pseudonyms, and the landing layout that readers and writers share."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest

from schemas.errors import ConfigurationError, JourneysError
from schemas.identifiers import HmacKey, pseudonymise
from schemas.landing import Segment, live_segments, parse_segment
from schemas.settings import Settings, load_settings

KEY = HmacKey("k1", b"secret")


def test_an_email_is_trimmed_normalised_and_lowered_before_hashing() -> None:
    expected = "k1:" + hmac.new(b"secret", b"ana@example.com", hashlib.sha256).hexdigest()
    assert pseudonymise("email", "  Ana@Example.com ", [KEY]) == [expected]
    assert pseudonymise("email", "\uff21na@example.com", [KEY]) == [expected]  # full-width A


def test_two_keys_give_two_values_while_one_rotates() -> None:
    values = pseudonymise("email", "ana@example.com", [KEY, HmacKey("k2", b"other")])
    assert [value.split(":")[0] for value in values] == ["k1", "k2"]


def test_a_phone_is_hashed_in_e164_only() -> None:
    assert pseudonymise("phone", "+49 (30) 123-456", [KEY]) == pseudonymise("phone", "+4930123456", [KEY])
    with pytest.raises(ConfigurationError, match="E.164"):
        pseudonymise("phone", "030 123456", [KEY])


def test_a_key_does_not_show_its_secret() -> None:
    assert repr(KEY) == "HmacKey(key_id='k1')"


def test_a_segment_path_round_trips_odd_names(tmp_path: Path) -> None:
    segment = Segment("file:///a b/ü", "x/y=z.ndjson", 3, 7, 41)
    path = segment.path(tmp_path)
    assert path.parent.parent.parent.parent == tmp_path
    assert path.name == "00000000000000000007-00000000000000000041.parquet"
    assert parse_segment(path) == segment
    assert parse_segment(path.with_suffix(".tmp")) is None


def test_a_range_inside_another_is_not_read_twice(tmp_path: Path) -> None:
    whole, left, right, next_one = (
        Segment("c", "t", 0, start, end) for start, end in [(0, 9), (0, 4), (5, 9), (10, 12)]
    )
    for segment in (whole, left, right, next_one):
        segment.path(tmp_path).parent.mkdir(parents=True, exist_ok=True)
        segment.path(tmp_path).touch()
    assert live_segments(tmp_path) == [whole, next_one]


def test_a_wrong_setting_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNEYS_KAFKA_PARTITIONS", "none")
    with pytest.raises(ConfigurationError, match="JOURNEYS_KAFKA_PARTITIONS.*'none'.*docs/reference/settings.md"):
        load_settings()


def test_secrets_are_never_printed() -> None:
    settings = Settings(kafka_sasl_password="hunter2")
    assert "hunter2" not in repr(settings) + str(settings.model_dump())


def test_an_error_says_what_where_value_and_remedy() -> None:
    error = JourneysError("offsets were lost", where="topic t, partition 0", value="5 to 9", remedy="Restore them")
    assert str(error) == "topic t, partition 0: offsets were lost (got '5 to 9'). Restore them"
