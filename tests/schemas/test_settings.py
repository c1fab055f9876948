"""Settings: environment variables of one installation, typed, frozen, and never printing a secret."""

from __future__ import annotations

import pickle
import re
import traceback
from pathlib import Path

import duckdb
import pytest
from pydantic import SecretStr, ValidationError

from schemas.errors import BuildError, ConfigurationError, GateFailedError, JourneysError, UsageError
from schemas.settings import PROJECT_DIR, Settings, ignored_variables, load_settings


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"JOURNEYS_{name.upper()}", raising=False)


def test_an_installation_without_variables_keeps_its_state_in_data_and_reads_the_local_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert settings.source == "kafka://127.0.0.1:9092"
    assert settings.config == PROJECT_DIR / "journey.yml"
    assert settings.landing_dir == tmp_path / "data" / "landing"
    assert settings.warehouse_path == tmp_path / "data" / "warehouse.duckdb"
    assert settings.published_dir == tmp_path / "data" / "published"


def test_what_is_given_wins_over_the_environment_and_none_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNEYS_HOME", "/srv/a")
    monkeypatch.setenv("JOURNEYS_PUBLISHED", "/srv/out")
    monkeypatch.setenv("JOURNEYS_PUBLISH_KEEP", "7")
    settings = load_settings(home=Path("/srv/b"), publish_keep=None)
    assert settings.landing_dir == Path("/srv/b/landing")
    assert (settings.published_dir, settings.publish_keep) == (Path("/srv/out"), 7)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PUBLISH_KEEP", "0"),
        ("KAFKA_PARTITIONS", "three"),
        ("KAFKA_TIMEOUT_SECONDS", "0"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS"),
        ("KAFKA_SASL_MECHANISM", "MD5"),
        ("KAFKA_SSL_CHECK_HOSTNAME", "perhaps"),
        ("LANDING_FILE_RECORDS", "-1"),
        ("DUCKDB_THREADS", "1.5"),
        ("DUCKDB_MEMORY_LIMIT", "lots"),
        ("DUCKDB_MEMORY_LIMIT", "512"),
        ("DUCKDB_MEMORY_LIMIT", "0GB"),
        ("DUCKDB_MEMORY_LIMIT", ""),
    ],
)
def test_a_wrong_value_names_variable_value_and_where_to_look(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"JOURNEYS_{variable}", value)
    with pytest.raises(ConfigurationError) as error:
        load_settings()
    assert (error.value.where, error.value.value) == (f"setting JOURNEYS_{variable}", value)
    assert "docs/reference/settings.md" in str(error.value)


def test_a_wrong_memory_limit_is_said_in_our_words_and_every_right_one_is_one_for_duckdb() -> None:
    with pytest.raises(
        ConfigurationError, match=r"DUCKDB_MEMORY_LIMIT: .*must be a size and its unit, like 2GB, 512MiB"
    ):
        load_settings(duckdb_memory_limit="2 gigs")
    for size in ("2GB", "512 MiB", "1.5gb", "3G", "50%", "1TB"):
        with duckdb.connect(
            config={"memory_limit": load_settings(duckdb_memory_limit=size).duckdb_memory_limit}
        ) as con:
            assert con.execute("select 1").fetchone() == (1,)


def test_a_variable_that_is_no_setting_is_found_with_the_closest_one() -> None:
    ours = (
        "JOURNEYS_HOME",
        "journeys_home",
        "JOURNEYS_REQUIRE_BROKER",
        "JOURNEYS_FIGURES",
        "JOURNEYS_CAMPAIGN_RECORDS",
    )
    assert ignored_variables([*ours, "HOME", "AIRFLOW_HOME", "MY_JOURNEYS_HOEM"]) == {}
    assert ignored_variables(["JOURNEYS_HOEM", "JOURNEYS_KAFKA_SASL_USER", "JOURNEYS_XYZ", "journeys_sorce"]) == {
        "JOURNEYS_HOEM": "JOURNEYS_HOME",
        "JOURNEYS_KAFKA_SASL_USER": "JOURNEYS_KAFKA_SASL_USERNAME",
        "JOURNEYS_XYZ": None,
        "journeys_sorce": "JOURNEYS_SOURCE",
    }


def test_every_variable_that_this_repository_reads_is_known() -> None:
    folders = ("benchmarks", "dags", "deploy", "examples", "ingest", "schemas", "transforms", "warehouse", ".ci")
    files = [file for folder in folders for file in (PROJECT_DIR / folder).rglob("*") if file.is_file()]
    files += [PROJECT_DIR / "Makefile", PROJECT_DIR / "journeys.py", PROJECT_DIR / "tests" / "conftest.py"]
    texts = [file.read_text("utf-8") for file in files if file.suffix in (".py", ".sh", ".yml", "")]
    names = {name for text in texts for name in re.findall(r"\bJOURNEYS_[A-Z_]*[A-Z]\b(?!_)", text)}
    assert "JOURNEYS_HOME" in names
    assert ignored_variables(names) == {}


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="JOURNEYS_HOMES"):
        load_settings(homes="x")


@pytest.mark.parametrize("name", ["kafka_sasl_password", "kafka_ssl_password"])
def test_secrets_are_in_no_message(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"JOURNEYS_{name.upper()}", "hunter2")
    settings = load_settings()
    assert isinstance(getattr(settings, name), SecretStr) and getattr(settings, name).get_secret_value() == "hunter2"
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    given = {name: ["hunter2"]}
    with pytest.raises(ConfigurationError) as error:
        load_settings(**given)
    assert "hunter2" not in "".join(traceback.format_exception(error.value))


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load_settings().home = Path("/elsewhere")  # type: ignore[misc]


def test_every_setting_is_described_in_the_reference() -> None:
    page = (PROJECT_DIR / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        assert field.description and f"| `JOURNEYS_{name.upper()}` |" in page, "run `make docs`"


@pytest.mark.parametrize("kind", [JourneysError, UsageError, ConfigurationError, BuildError, GateFailedError])
def test_an_error_survives_a_process_boundary(kind: type[JourneysError]) -> None:
    error = kind("it broke", where="table t", value=3, remedy="Mend it")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind and str(copy) == "table t: it broke (got 3). Mend it"
    assert copy.exit_code == (2 if kind in (UsageError, ConfigurationError) else 1)


@pytest.mark.parametrize("below", [".", "under/it"])
def test_a_home_that_cannot_be_a_folder_is_refused(below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("JOURNEYS_HOME", str(tmp_path / "file" / below))
    with pytest.raises(ConfigurationError, match=f"setting JOURNEYS_HOME: .*{tmp_path}/file is none.*environment"):
        load_settings()


def test_a_home_that_is_still_to_be_made_is_fine(tmp_path: Path) -> None:
    assert load_settings(home=tmp_path / "new" / "home").home == tmp_path / "new" / "home"
