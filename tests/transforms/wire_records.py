"""Records as they may land: valid events of every type, and ones mutated in structure, spelling and bytes.

Not a test module: `test_verdict_agrees.py` loads it. `a_record(rng)` is a pure function of the generator's state.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.contracts import CHANNEL_EVENT_TYPES, ENVELOPE_FIELDS, PROPERTY_FIELDS
from schemas.events import EVENT_TYPES
from schemas.identifiers import IDENTIFIER_TYPES

HMAC = "k1:" + "0a" * 32


class Raw(str):
    """JSON text, or what claims to be."""


def _strings(length: int) -> list[str]:
    """Texts around a limit: characters of one to four bytes, and escapes that make them longer on the wire."""
    return ["x" * length, "é" * length, "\U0001f600" * length, '"' * length, "x" * (length + 1), "x" * (length + 3)]


TEXTS = [
    *("", " ", "x", "a b", "é", "\U0001f600", "e\u0301", "\u202e", "\x7f", "\x1f", "\t", "\n", "\\", '"', '":', '" :'),
    *(",}", ", ]", ":null", "/*", "//", "NaN", "null", "{}", "[]", "a@b", "a@b.co", "x a@b.co y", "@", "'"),
    "analytics",
    *("0", "1", "1.5", "12.50", "-1", "+5", " 5", "1e2", "1_0", ".5", "5.", "0.005", "1.000", "00001", "NaN"),
    "Infinity",
    *("9" * 15, "9" * 16, "9" * 16 + ".99", "9" * 17, "٣", "EUR", "eur", "EURO", "agent", "customer", "Agent", "true"),
    *(HMAC, HMAC.upper(), HMAC + "0", ":" + "0a" * 32, "k" * 32 + HMAC[2:], "k" * 33 + HMAC[2:], "k é" + HMAC[2:]),
    *("3f2504e0-4f89-11d3-9a0c-0305e82c3301", "3F2504E0-4F89-11D3-9A0C-0305E82C3301"),
    "3f2504e04f8911d39a0c0305e82c3301",
    *("{3f2504e0-4f89-11d3-9a0c-0305e82c3301}", "3f2504e0-4f89-11d3-9a0c-0305e82c330g"),
    "00000000-0000-0000-0000-000000000000",
    *("web", "email", "store", "support", "Web", *list(EVENT_TYPES)[::5], "order_Completed", "page_viewed "),
    *_strings(512), *_strings(1024), *_strings(8192),
]  # fmt: skip
TIMES = [
    f"{day}T{clock}{zone}"
    for day in (
        *("2026-03-01", "2024-02-29", "2026-02-29", "2026-13-01", "2026-04-31", "1989-12-31", "1990-01-01"),
        *("0001-01-01", "0000-01-01", "9999-12-31", "1970-01-01", "12026-01-01", "2026-3-1", "2099-12-31"),
        "2100-01-01",
    )
    for clock in (
        *("00:00:00", "23:59:59.999999", "24:00:00", "23:59:60", "12:00:00.1234567", "12:00", "12:00:00."),
        "12:00:00,5",
    )
    for zone in (
        *("Z", "z", "", "+00:00", "-00:00", "+13:59", "+14:00", "-15:59", "+23:59", "+24:00", "+01", "+0100", " UTC"),
    )
]  # fmt: skip
JUNK = [
    *("null", "true", "false", "0", "1", "2", "5", "6", "10", "11", "-1", "-0", "01", "1.0", "1e0", "1e2"),
    *("1E+2", "1.5"),
    *("12.34", "12.345", "0.1", "0.10", "0.1000000000000000055511151231257827", "1.", ".5", "+1", "0x10", "1_0", "- 1"),
    *("123456789012.34", "1234567890123.45", "99999999999999.99", "9007199254740993", "9" * 16, "9" * 17, "9" * 25),
    *("9" * 300, "9" * 400, "1e400", "-1e400", "1e-400", "NaN", "nan", "-NaN", "Infinity", "-Infinity", "inf", "Inf"),
    *("{}", "[]", "[null]", "[1,]", "{,}", '{"a":null}', '{"a":1,"a":2}', '{"a":1,}', '{"a":{"b":[1,{"c":"d"}]}}'),
    *("[" * n + "]" * n for n in (2, 40, 60, 190, 210, 1200)),
    *('{"a":' * n + "1" + "}" * n for n in (10, 49, 60, 210)),
    *('"\\u0000"', '"\\\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u0041"', '"\\/"', '"\\x"', '"\\u12"'),
    '"\\u0022:"',
    *('"a\tb"', '"a\nb"', '"a\x01b"', '"a\x00b"', "'x'", "x", "undefined", '"x', 'x"', '"a" "b"', '"a":"b"', "/*x*/1"),
    *(f'["{HMAC}"]', f'["{HMAC}","{HMAC}"]', '["x"]', '["x","y"]', '["x", "y"]', '["x",1]', '["x",null]', '["a@b.co"]'),
    *('["' + '","'.join(map(str, range(n))) + '"]' for n in (39, 40, 41, 49, 50, 51, 200)), '["","x"]',
    '["x,y"]', '[["x"]]',
    *('{"analytics":true}', '{"analytics":false,"marketing":true}', '{"marketing":false,"analytics":false}'),
    '{"analytics":null}',
    *('{"analytics": false}', '{"analytics":1}', '{"other":true}', '{"analytics":true,"analytics":false}'),
    '{"analytics":true,}',
]  # fmt: skip
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\x0b", "\u00a0", "/**/", "/* x */", "//x\n", "#x\n"]
BYTES = [bytes([code]) for code in b"\"{}[],:\\ \t\n\r\x00\x01\x1f\x7f\xc3\xff/*#'0eE+-.nNuIt"]
TAILS = [b" ", b"\n", b"x", b"}", b"]", b"{}", b",", b"\x00", b"//x", b"/**/", b"null", b"\xff", b'"', b";"]
HEADS = [b" ", b"\n", b"\xef\xbb\xbf", b"[", b"{", b"x", b"/**/", b"\x00", b"0", b"null"]


def a_value(rng: random.Random) -> Any:
    """Something for any field: a text, a time, or JSON text that is often none."""
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(TEXTS)
    return rng.choice(TIMES) if kind < 0.45 else Raw(rng.choice(JUNK))


def a_text(rng: random.Random) -> str:
    alphabet = string.ascii_letters + string.digits + "_-/ .%éß漢\U0001f600"
    return "".join(rng.choices(alphabet, k=rng.randint(1, 12)))


def a_time(rng: random.Random) -> str:
    moment = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(40_000_000))
    text = moment.strftime("%Y-%m-%dT%H:%M:%S") + rng.choice(["", "", ".5", ".123456"])
    return text + rng.choice(["Z", "+00:00", "+02:00", "-05:30"])


PROPERTY_VALUES: dict[str, Callable[[random.Random], Any]] = {
    "integer": lambda rng: rng.randint(1, 5),
    "boolean": lambda rng: rng.random() < 0.5,
    "money": lambda rng: rng.choice([rng.randrange(10**6) / 100, f"{rng.randrange(10**9) / 100:.2f}", 7]),
    "pattern": lambda rng: rng.choice(["EUR", "USD"]),
    "enum": lambda rng: rng.choice(["customer", "agent"]),
    "text": a_text,
}  # fmt: skip


def an_event(rng: random.Random) -> dict[str, Any]:
    """A valid event of any type, optional parts at random."""
    channel, event_type = rng.choice(CHANNEL_EVENT_TYPES)
    kinds = rng.sample(IDENTIFIER_TYPES, rng.choice([1, 1, 2, 3]) if not event_type.startswith("identity_") else 3)
    identifiers = {kind: HMAC if "hmac" in kind else a_text(rng) for kind in kinds}
    if rng.random() < 0.2:
        identifiers = {kind: [value] for kind, value in identifiers.items()}
    properties = {
        name: PROPERTY_VALUES[field.kind](rng)
        for name, field in PROPERTY_FIELDS.items()
        if event_type in field.required_by
        or (event_type in field.declared_by and rng.random() < 0.5)
        or (event_type in PROPERTY_FIELDS["amount"].declared_by and name == "currency")
    }
    if rng.random() < 0.3:
        properties[a_text(rng)] = rng.choice([1, 1.5, "x", True, [1, "é"], {"sku": {"n": [1]}}])
    optional = {name: a_text(rng) for name in ("source", "medium", "campaign", "experiment", "variant", "event_name")}
    needed = {"experiment_viewed": ("experiment", "variant"), "custom": ("event_name",)}.get(event_type, ())
    event = {
        "event_id": "".join(rng.choices("0123456789abcdef", k=32)),
        "schema_version": 1,
        "channel": channel,
        "event_type": event_type,
        "occurred_at": a_time(rng),
        "received_at": a_time(rng),
        "identifiers": identifiers,
        **{name: value for name, value in optional.items() if name in needed or rng.random() < 0.2},
    }
    event["event_id"] = "-".join(event["event_id"][a:b] for a, b in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))
    if rng.random() < 0.2:
        event["consent"] = {"analytics": rng.random() < 0.5}
    if properties or rng.random() < 0.5:
        event["properties"] = properties
    return event


def twist(rng: random.Random, event: dict[str, Any]) -> None:
    """Change one thing in the event's structure."""
    part = rng.choice([event, event, event.get("identifiers"), event.get("properties"), event.get("properties")])
    if not isinstance(part, dict):
        part = event
    names = {id(event): list(ENVELOPE_FIELDS), id(event.get("identifiers")): list(IDENTIFIER_TYPES)}
    known = [*names.get(id(part), list(PROPERTY_FIELDS)), *part]
    match rng.randrange(8):
        case 0 if part:
            part.pop(rng.choice(list(part)))
        case 1:
            part[rng.choice(["x", "customer_id", "amount", "event_id", "custom", "", "a\u0000", "é", '":'])] = a_value(
                rng
            )
        case 2:
            event["channel"], event["event_type"] = (
                rng.choice(["web", "email", "store", "support"]),
                rng.choice([*EVENT_TYPES]),
            )
        case 3:
            items = list(part.items())
            rng.shuffle(items)
            part.clear()
            part.update(items)
        case _:
            part[rng.choice(known)] = a_value(rng)


def spell(rng: random.Random, value: Any, sloppiness: float) -> str:
    """JSON text of a value; `sloppiness` is the chance, at each place, of an unusual or wrong spelling."""

    def odd() -> bool:
        return rng.random() < sloppiness

    def gap() -> str:
        return rng.choice(SPACES) if odd() else ""

    if isinstance(value, Raw):
        return value
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=odd())[1:-1]
        if odd():
            place = rng.randrange(len(text) + 1)
            letter = text[place : place + 1]
            if letter.isalnum() and letter.isascii() and "\\" not in text:
                text = text[:place] + f"\\u{ord(letter):04x}" + text[place + 1 :]
        quote = rng.choice(["'", "", "`", '"']) if rng.random() < sloppiness / 4 else '"'
        return quote + text + quote
    if isinstance(value, dict | list):
        is_object = isinstance(value, dict)
        parts = [
            f"{gap()}{spell(rng, key, sloppiness)}{gap()}:{gap()}{spell(rng, item, sloppiness)}{gap()}"
            for key, item in value.items()
        ] if is_object else [gap() + spell(rng, item, sloppiness) + gap() for item in value]  # fmt: skip
        if parts and rng.random() < sloppiness / 2:
            parts.insert(rng.randrange(len(parts) + 1), rng.choice(parts))
        text = (", " if odd() else ",").join(parts) + ("," if rng.random() < sloppiness / 4 else "")
        return "{" + text + "}" if is_object else "[" + text + "]"
    return json.dumps(value)


def scratch(rng: random.Random, raw: bytes) -> bytes:
    """Change one thing in the bytes."""
    start = rng.randrange(len(raw) + 1)
    end = min(len(raw), start + rng.choice([1, 1, 1, 2, 5, 30]))
    match rng.randrange(8):
        case 0 if start < len(raw):
            return raw[:start] + bytes([raw[start] ^ 1 << rng.randrange(8)]) + raw[start + 1 :]
        case 1:
            return raw[:start] + raw[end:]
        case 2 | 3:
            return raw[:start] + rng.choice(BYTES) + raw[start:]
        case 4:
            return raw[:start]
        case 5:
            return raw[:end] + raw[start:end] + raw[end:]
        case 6:
            return raw + rng.choice(TAILS)
        case _:
            return rng.choice(HEADS) + raw


def a_record(rng: random.Random) -> bytes | None:
    """A record as it may land: a third in its plain spelling, the rest mutated once to four times."""
    event = an_event(rng)
    kind = rng.random()
    if kind < 0.3:
        return json.dumps(event, ensure_ascii=rng.random() < 0.5, separators=rng.choice([None, (",", ":")])).encode()
    if kind < 0.75:
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            twist(rng, event)
    raw = spell(rng, event, rng.choice([0.0, 0.0, 0.01, 0.05])).encode()
    if kind > 0.65:
        for _ in range(rng.choice([1, 1, 2])):
            raw = scratch(rng, raw)
    return None if kind > 0.999 else raw
