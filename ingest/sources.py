"""Where touchpoints come from and go to: a Kafka cluster or a drop folder, told apart by the URL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from schemas.errors import ConfigurationError
from schemas.settings import Settings

_REMEDY = "Write kafka://host:port[,host:port] or file:///absolute/folder"


@dataclass(frozen=True)
class KafkaSource:
    """A cluster, reached through any of its `host:port` addresses."""

    bootstrap: tuple[str, ...]

    @property
    def address(self) -> str:
        """The addresses as one string, for messages."""
        return ",".join(self.bootstrap)


@dataclass(frozen=True)
class FolderSource:
    """A drop folder: `<folder>/<topic>/<file>`, each file a log of its own."""

    folder: Path

    @property
    def cluster(self) -> str:
        """What stands for the cluster in the landed records."""
        return f"file:{self.folder}"


Source = KafkaSource | FolderSource


def parse_source(url: str) -> Source:
    """The source a URL names; nothing is opened. Raises ConfigurationError for any other URL."""
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "kafka":
        return KafkaSource(tuple(_address(part, url) for part in rest.rstrip("/").split(",")))
    if scheme == "file" or url.startswith("file:"):
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ConfigurationError("the folder of a file URL must be absolute", value=url, remedy=_REMEDY)
        return FolderSource(Path(unquote(parts.path)))
    raise ConfigurationError("unknown kind of source URL", value=url, remedy=_REMEDY)


def open_source(url: str, settings: Settings) -> Source:
    """The source a URL names, after making sure that it is there.

    Raises ConfigurationError for a wrong URL or a missing folder, BrokerError for a cluster that does not answer
    within `settings.kafka_timeout_seconds`.
    """
    source = parse_source(url)
    if isinstance(source, FolderSource):
        if not source.folder.is_dir():
            raise ConfigurationError(
                "the drop folder does not exist", where=str(source.folder), remedy="Create it, or correct the URL"
            )
    else:
        from ingest.kafka import check_connection  # kafka-python loads only where a broker is meant

        check_connection(source, settings)
    return source


def missing_topics(url: str, topics: Sequence[str], settings: Settings) -> list[str]:
    """Those of `topics` without a folder in the drop folder, or not on the cluster; raises like `open_source`."""
    source = open_source(url, settings)
    if isinstance(source, FolderSource):
        return [topic for topic in topics if not (source.folder / topic).is_dir()]
    from ingest.kafka import describe_topics, open_admin

    with open_admin(source, settings) as admin:
        found = describe_topics(admin, topics)
    return [topic for topic in topics if topic not in found]


def _address(text: str, url: str) -> str:
    host, separator, port = text.strip().rpartition(":")
    if not separator:
        host, port = text.strip(), "9092"
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError("not a host:port address", where=url, value=text, remedy=_REMEDY)
    return f"{host}:{port}"
