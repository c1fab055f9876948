"""Faults of kafka-python 3.0 that would cost a record or a clear message, mended where they are.

Each is covered by a test against a real broker: when a later release passes them without this, drop it.
"""

from __future__ import annotations

from typing import Any

from kafka.errors import AuthorizationError, CorruptRecordError, SaslAuthenticationFailedError
from kafka.net.manager import KafkaConnectionManager
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch


def apply() -> None:
    """Mend kafka-python in this process; once is enough, again is harmless."""
    memory_records.DefaultRecordBatch = _AnyHeaderBatch
    for transport in (KafkaTCPTransport, KafkaSSLTransport):
        if "hears_last_words" not in vars(transport):
            transport._sock_recv = _hearing_last_words(transport._sock_recv)
            transport.hears_last_words = True
    if "remembers_refusals" not in vars(KafkaConnectionManager):
        KafkaConnectionManager.get_connection = _remembering_refusals(KafkaConnectionManager.get_connection)
        KafkaConnectionManager.remembers_refusals = True


class _AnyHeaderBatch(DefaultRecordBatch):  # type: ignore[misc]
    """Reads header names that are not UTF-8 (clients in C may send them), where the original stops for ever.

    Such a name is kept with its odd bytes written as `\\xe9`.
    """

    _buffer: bytearray

    def __iter__(self) -> Any:
        self._maybe_uncompress()
        while True:
            try:
                # Not `self`, whose `__iter__` this is. A wrapper around each record would cost all of them.
                yield from iter(self.__next__, None)
                return
            except CorruptRecordError as error:
                if not isinstance(error.__context__, UnicodeDecodeError) or isinstance(self._buffer, _LenientBuffer):
                    raise
                self._buffer = _LenientBuffer(self._buffer)  # the record that failed is read again


class _LenientBuffer(bytearray):
    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        return _LenientBuffer(part) if isinstance(index, slice) else part

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)


def _hearing_last_words(receive: Any) -> Any:
    """Hand over what came before the connection was closed: a broker says why it refuses a password, then hangs up.

    The original drops it, so that wrong credentials look like a broker that does not answer.
    """

    def _sock_recv(transport: Any) -> tuple[bytes, Any]:
        received, error = receive(transport)
        return (received, None) if received else (received, error)  # the next read meets the end again

    return _sock_recv


def _remembering_refusals(get_connection: Any) -> Any:
    """Let a refused password end the attempts to bootstrap: the original tries again until its time is over."""

    def _get_connection(manager: Any, node_id: Any, *args: Any, **options: Any) -> Any:
        refusals = manager.__dict__.setdefault("bootstrap_refusals", {})
        if node_id in refusals:
            raise refusals[node_id]
        connection = get_connection(manager, node_id, *args, **options)

        def remember(error: Any) -> None:
            if isinstance(error, SaslAuthenticationFailedError | AuthorizationError):
                refusals[node_id] = error

        if manager.cluster.is_bootstrap(node_id):
            connection.init_future.add_errback(remember)
        return connection

    return _get_connection
