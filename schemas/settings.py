"""Settings of an installation: where things live and how to reach Kafka. What numbers mean is `journey.yml`.

Each setting is an environment variable `JOURNEYS_<NAME>`; secrets are secret types and never printed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.errors import ConfigurationError

PROJECT_DIR = Path(__file__).resolve().parent.parent
PREFIX = "JOURNEYS_"
_OF_THE_TESTS = ("REQUIRE_BROKER", "FIGURES", "CAMPAIGN_RECORDS")
"""Variables of ours that are no settings: switches of the test suite."""


def _memory_size(value: str) -> str:
    # DuckDB's own message would come later, as one about the warehouse it could not open
    if not re.fullmatch(r"(?=.*[1-9])\d+(\.\d+)? ?([MGT](i?B)?|%)", value, re.IGNORECASE):
        raise ValueError("must be a size and its unit, like 2GB, 512MiB or 50%")
    return value


def _folder(value: Path) -> Path:
    # otherwise the first step that makes a folder in it would stop with a bare "Not a directory"
    nearest = next((path for path in (value, *value.absolute().parents) if os.path.lexists(path)), value)
    if not os.path.isdir(nearest):  # noqa: PTH112 - Path.is_dir raises where it may not look
        raise ValueError(f"must be a folder or a path where one can be made, but {nearest} is none")
    return value


class Settings(BaseSettings):
    """Frozen settings, read once and passed in; never a global."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    home: Annotated[Path, AfterValidator(_folder)] = Field(
        Path("data"), description="Folder that holds all state: landing, warehouse, published"
    )
    config: Path = Field(PROJECT_DIR / "journey.yml", description="The journey definition analysts edit")
    source: str = Field(
        "kafka://127.0.0.1:9092",
        description="Where touchpoints come from and go to: kafka://host:port[,host:port] or file:///folder",
    )
    published: Path | None = Field(None, description="Folder of publications (default: <home>/published)")
    publish_group: str | None = Field(
        None, description="Unix group that alone may read publications (default: everybody on the machine)"
    )
    publish_keep: int = Field(3, ge=1, description="Number of publications kept, the current one included")

    schedule: str = Field("0 2 * * *", description="Cron (UTC) of the DAG journeys_nightly; none: only by hand")

    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Protocol to the brokers"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI"] | None = Field(
        None, description="SASL mechanism, with SASL_PLAINTEXT or SASL_SSL"
    )
    kafka_sasl_username: str | None = Field(None, description="SASL user name")
    kafka_sasl_password: SecretStr | None = Field(None, description="SASL password")
    kafka_ssl_cafile: Path | None = Field(None, description="PEM file with the authorities that sign the brokers")
    kafka_ssl_certfile: Path | None = Field(None, description="PEM file with the client certificate")
    kafka_ssl_keyfile: Path | None = Field(None, description="PEM file with the client key")
    kafka_ssl_password: SecretStr | None = Field(None, description="Password of the client key")
    kafka_ssl_check_hostname: bool = Field(True, description="Check that the broker's certificate names its host")
    kafka_timeout_seconds: float = Field(30, gt=0, description="How long a broker may stay silent, in seconds")
    kafka_partitions: int = Field(3, ge=1, description="Partitions of the topics we create")
    kafka_replication_factor: int = Field(1, ge=1, description="Replicas of the topics we create")
    kafka_retention_hours: int = Field(24 * 14, ge=1, description="Retention of the topics we create, in hours")

    landing_file_records: int = Field(250_000, ge=1, description="Records after which a landing file is closed")
    landing_file_bytes: int = Field(256 * 2**20, ge=1, description="Payload bytes after which a file is closed")

    duckdb_memory_limit: Annotated[str, AfterValidator(_memory_size)] = Field(
        "2GB", description="Memory DuckDB may use before it spills to disk"
    )
    duckdb_threads: int | None = Field(None, ge=1, description="Threads DuckDB may use (default: all cores)")

    @property
    def landing_dir(self) -> Path:
        """Folder of the landed records (private)."""
        return self.home.absolute() / "landing"

    @property
    def warehouse_path(self) -> Path:
        """The one writable DuckDB file (private)."""
        return self.home.absolute() / "warehouse.duckdb"

    @property
    def published_dir(self) -> Path:
        """Root of the publications that readers see."""
        return (self.published or self.home / "published").absolute()


def ignored_variables(names: Iterable[str]) -> dict[str, str | None]:
    """The variables among `names` that are named like a setting and are none, each with the setting closest to it.

    They may be someone else's, so nothing is refused: a caller who can speak to a person tells of them.
    """
    settings = [name.upper() for name in Settings.model_fields]
    found = sorted(name for name in names if name.upper().startswith(PREFIX))
    unknown = {name: name.upper().removeprefix(PREFIX) for name in found}
    return {
        name: next((PREFIX + match for match in get_close_matches(rest, settings, n=1)), None)
        for name, rest in unknown.items()
        if rest not in (*settings, *_OF_THE_TESTS)
    }


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, with `overrides` (None means not given) on top."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]) or "settings"
        raise ConfigurationError(
            first["msg"],
            where=f"setting JOURNEYS_{name.upper()}",
            value=None if "password" in name else str(first.get("input")),
            remedy="Correct or unset the environment variable; docs/reference/settings.md lists them all",
        ) from None  # its text would quote a secret
