"""One family of errors: each says what failed, where, the value and the remedy.

Bad *data* is never an exception: a record that breaks its contract is a value (`schemas.events.Rejection`)
that ends in the quarantine. Exceptions are for wrong use and broken systems.
"""

from __future__ import annotations


class JourneysError(Exception):
    """Base of every error the pipeline raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, value: object = None, remedy: str | None = None) -> None:
        self.what, self.where, self.value, self.remedy = what, where, value, remedy
        super().__init__(self._message())

    def _message(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.value is not None:
            shown = self.value if isinstance(self.value, str) else repr(self.value)
            text += f" (got {shown[:200]!r})" if isinstance(self.value, str) else f" (got {shown[:200]})"
        return f"{text}. {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple[object, ...]:  # keyword arguments survive a process boundary
        return (_rebuild, (type(self), self.what, self.where, self.value, self.remedy))


def _rebuild(
    kind: type[JourneysError], what: str, where: str | None, value: object, remedy: str | None
) -> JourneysError:
    return kind(what, where=where, value=value, remedy=remedy)


class UsageError(JourneysError):
    """A command was called wrongly."""

    exit_code = 2


class ConfigurationError(JourneysError):
    """A file the user edits (journey.yml, a mapping) or a setting is not valid."""

    exit_code = 2


class BrokerError(JourneysError):
    """Kafka is unreachable, refused a record, or answered something that would lose data."""


class LandingError(JourneysError):
    """Landed offsets and the source disagree (expired range, recreated topic, shrunken drop file)."""


class UnlandedError(LandingError):
    """Some logs contradict what was landed of them: `problems`; all others were landed, `record_count` records."""

    problems: tuple[str, ...] = ()
    record_count = 0


class BuildError(JourneysError):
    """A transform or a model failed, or a second writer holds the warehouse."""


class ModelError(BuildError):
    """A model or a check is wrong by itself: it would fail again until somebody corrects it."""


class GateFailedError(JourneysError):
    """A data-quality check of severity `fail` did not hold; nothing was published."""


class PublishError(JourneysError):
    """A publication could not be written, or the published files are not whole."""
