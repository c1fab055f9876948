"""The one place that knows how Settings become kafka-python clients, and what its errors mean to a user."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient
from kafka import errors as kafka_errors

from ingest import kafka_fixes
from ingest.sources import KafkaSource
from schemas.errors import BrokerError, ConfigurationError
from schemas.settings import Settings

logger = logging.getLogger(__name__)

kafka_fixes.apply()

MAX_MESSAGE_BYTES = 8 * 2**20
"""Largest record our topics take: far above any touchpoint, so that an absurd one is landed and quarantined."""

CONSUMER_GROUP = "journeys-landing"
"""Group whose committed offsets tell lag tools how far landing is; landing itself never reads them."""


@dataclass(frozen=True)
class TopicInfo:
    """A topic as the cluster describes it; `topic_id` changes when it is deleted and created again."""

    name: str
    topic_id: str | None
    partitions: tuple[int, ...]


def client_options(source: KafkaSource, settings: Settings) -> dict[str, Any]:
    """The options every kafka-python client gets: addresses, timeouts, TLS and SASL.

    Raises ConfigurationError when the security settings contradict each other or name missing files.
    """
    timeout_ms = max(int(settings.kafka_timeout_seconds * 1000), 100)
    return {
        "bootstrap_servers": list(source.bootstrap),
        "client_id": "journeys",
        "request_timeout_ms": timeout_ms,
        "bootstrap_timeout_ms": timeout_ms,
        "connections_max_idle_ms": max(540_000, 2 * timeout_ms),
        "reconnect_backoff_max_ms": 1000,
        "security_protocol": settings.kafka_security_protocol,
        **_tls_options(settings),
        **_sasl_options(settings),
    }


def _tls_options(settings: Settings) -> dict[str, Any]:
    if settings.kafka_security_protocol not in ("SSL", "SASL_SSL"):
        return {}
    files = {name: getattr(settings, f"kafka_{name}") for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile")}
    for name, path in files.items():
        if path is not None and not Path(path).is_file():
            raise ConfigurationError(
                "the file does not exist", where=f"setting JOURNEYS_KAFKA_{name.upper()}", value=str(path)
            )
    password = settings.kafka_ssl_password
    return {
        **{name: str(path) for name, path in files.items() if path is not None},
        "ssl_password": password.get_secret_value() if password else None,
        "ssl_check_hostname": settings.kafka_ssl_check_hostname,
    }


def _sasl_options(settings: Settings) -> dict[str, Any]:
    mechanism = settings.kafka_sasl_mechanism
    if settings.kafka_security_protocol not in ("SASL_PLAINTEXT", "SASL_SSL"):
        if mechanism is not None:
            raise ConfigurationError(
                "a SASL mechanism needs a SASL protocol",
                where="setting JOURNEYS_KAFKA_SECURITY_PROTOCOL",
                value=settings.kafka_security_protocol,
                remedy="Set it to SASL_SSL (or SASL_PLAINTEXT), or unset JOURNEYS_KAFKA_SASL_MECHANISM",
            )
        return {}
    if mechanism is None or mechanism == "OAUTHBEARER":
        raise ConfigurationError(
            "no usable SASL mechanism",
            where="setting JOURNEYS_KAFKA_SASL_MECHANISM",
            value=mechanism,
            remedy="Set it to PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or GSSAPI; OAUTHBEARER needs a token provider",
        )
    if mechanism == "GSSAPI":
        return {"sasl_mechanism": mechanism}
    username, password = settings.kafka_sasl_username, settings.kafka_sasl_password
    if not username or password is None:
        raise ConfigurationError(
            f"SASL {mechanism} needs a user name and a password",
            remedy="Set JOURNEYS_KAFKA_SASL_USERNAME and JOURNEYS_KAFKA_SASL_PASSWORD",
        )
    return {
        "sasl_mechanism": mechanism,
        "sasl_plain_username": username,
        "sasl_plain_password": password.get_secret_value(),
    }


@contextmanager
def broker_errors(source: KafkaSource, settings: Settings) -> Iterator[None]:
    """Turn what kafka-python raises into a BrokerError that names the address and the remedy."""
    try:
        yield
    except (kafka_errors.KafkaError, OSError, AssertionError) as error:
        what, remedy = _explain(error, settings)
        raise BrokerError(what, where=f"kafka://{source.address}", remedy=remedy) from error


def _explain(error: Exception, settings: Settings) -> tuple[str, str]:
    detail = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, kafka_errors.SaslAuthenticationFailedError):
        return f"Kafka refused the credentials ({detail})", "Check the JOURNEYS_KAFKA_SASL_* settings"
    if isinstance(error, kafka_errors.AuthorizationError):
        return f"Kafka does not allow this ({detail})", "Grant the user access to the topics (Kafka ACLs)"
    if isinstance(error, kafka_errors.UnsupportedCodecError):
        return f"a record is compressed in a way this client cannot read ({detail})", (
            "Install the codec: pip install 'kafka-python[lz4,snappy,zstd]'"
        )
    if isinstance(error, kafka_errors.CorruptRecordError):
        return f"a stored record is damaged ({detail})", "Repair the log on the broker, or skip the record there"
    return f"Kafka did not answer as it should within {settings.kafka_timeout_seconds:g} s ({detail})", (
        "Check that the broker runs and is reachable (`make kafka` starts a local one), and the JOURNEYS_KAFKA_* "
        "settings (protocol, TLS, SASL)"
    )


@contextmanager
def open_admin(source: KafkaSource, settings: Settings) -> Iterator[KafkaAdminClient]:
    """An admin client; errors inside are translated. Raises BrokerError when the cluster does not answer."""
    options = client_options(source, settings)
    with broker_errors(source, settings), KafkaAdminClient(**options) as admin:
        yield admin


def check_connection(source: KafkaSource, settings: Settings) -> str:
    """The cluster's id; raises BrokerError when nothing answers within the timeout."""
    with open_admin(source, settings) as admin:
        return cluster_id(admin)


def cluster_id(admin: KafkaAdminClient) -> str:
    """The id a cluster was formatted with: offsets of two clusters never mix."""
    return str(admin.describe_cluster()["cluster_id"])


def describe_topics(admin: KafkaAdminClient, names: Sequence[str] | None) -> dict[str, TopicInfo]:
    """The topics that exist among `names` (None: all but internal ones), by name."""
    found = {}
    for topic in admin.describe_topics(None if names is None else list(names)):
        error = kafka_errors.for_code(topic["error_code"])
        if error is kafka_errors.UnknownTopicOrPartitionError or topic.get("is_internal"):
            continue
        if error is not kafka_errors.NoError:
            raise error(f"topic {topic['name']}")
        partitions = tuple(sorted(partition["partition_index"] for partition in topic["partitions"]))
        identity = topic.get("topic_id")
        found[topic["name"]] = TopicInfo(topic["name"], str(identity) if identity else None, partitions)
    return found


def ensure_topics(admin: KafkaAdminClient, names: Iterable[str], settings: Settings) -> None:
    """Create the topics that are missing, with our partitions, replicas, retention and record size."""
    missing = sorted(set(names) - describe_topics(admin, list(names)).keys())
    for name in missing:
        options = {
            "num_partitions": settings.kafka_partitions,
            "replication_factor": settings.kafka_replication_factor,
            "configs": {
                "retention.ms": str(settings.kafka_retention_hours * 3_600_000),
                "max.message.bytes": str(MAX_MESSAGE_BYTES),
            },
        }
        try:
            admin.create_topics({name: options})
            logger.info("created topic %s with %d partitions", name, settings.kafka_partitions)
        except kafka_errors.TopicAlreadyExistsError:
            logger.debug("topic %s was created meanwhile", name)
    if missing:
        admin.wait_for_topics(missing, timeout_ms=int(settings.kafka_timeout_seconds * 1000))
