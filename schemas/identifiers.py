"""Identifiers: their types by strength, and how personal ones are pseudonymised before anything is written."""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from schemas.errors import ConfigurationError

IDENTIFIER_TYPES = ("customer_id", "email_hmac", "phone_hmac", "loyalty_id", "device_id", "anonymous_id")
"""Strongest first; the position is the strength. Only `customer_id` is hard."""

HARD_IDENTIFIER = IDENTIFIER_TYPES[0]
HMAC_TYPES = ("email_hmac", "phone_hmac")
MAX_IDENTIFIER_LENGTH = 512
MAX_IDENTIFIERS_PER_TYPE = 50

HMAC_PATTERN = re.compile(r"[A-Za-z0-9_.-]{1,32}:[0-9a-f]{64}")
CLEAR_EMAIL_PATTERN = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_E164 = re.compile(r"\+[1-9]\d{6,14}")


@dataclass(frozen=True)
class HmacKey:
    """A named secret. Its name travels with every value, so that keys can rotate."""

    key_id: str
    secret: bytes

    def __repr__(self) -> str:  # a key in a log or a traceback would undo the pseudonyms
        return f"HmacKey(key_id={self.key_id!r})"


def normalise(kind: Literal["email", "phone"], value: str) -> str:
    """The form that is hashed: e-mail trimmed, NFKC, lower case; phone in E.164.

    Raises ConfigurationError for a phone number that is not E.164 (a national number has no one reading).
    """
    if kind == "email":
        return unicodedata.normalize("NFKC", value.strip()).lower()
    compact = re.sub(r"[\s().-]", "", value)
    if not _E164.fullmatch(compact):
        raise ConfigurationError(
            "a phone number must be in E.164 form to be hashed",
            remedy="Write it with its country, for example +4930123456",
        )
    return compact


def pseudonymise(kind: Literal["email", "phone"], value: str, keys: Sequence[HmacKey]) -> list[str]:
    """`<key id>:<hex of HMAC-SHA256>` under every key; two keys while one rotates, which makes an edge."""
    message = normalise(kind, value).encode()
    return [f"{key.key_id}:{hmac.new(key.secret, message, hashlib.sha256).hexdigest()}" for key in keys]
