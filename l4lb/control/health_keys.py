"""The keys `health` and `passive` of a service as values.

A type of check has keys of its own. One that does not belong to the type is an error, for it would look as if
it did something. What a check sends or runs is held to what the wire and the system can carry, so that a
mistake is found here and not by backends that go down.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from typing import TypeVar

from l4lb.control.check_way import CAN_ASK_VIP, hears_of_failure
from l4lb.control.field import Field
from l4lb.control.message import quoted
from l4lb.control.units import show_duration
from l4lb.model import FIRST_PORT, LAST_PORT, CheckType, Expectation, HealthCheck, PassiveCheck, Via

INTERVAL_S = (0.1, 3600.0)
TIMEOUT_S = (0.01, 300.0)
MAX_IN_A_ROW = 100
_MAX_PASSIVE_FAILURES = 1000
LONGEST_INHIBIT_S = 86400.0
MAX_PAYLOAD = 1200
"""Bytes that fit a datagram on every path: 1280 (RFC 8200, section 5) less IPv6, UDP and a tunnel's
headers."""
_MAX_TEXT = 1000
_MAX_PATH = 2000
_MAX_WORDS = 64
_MAX_LABEL = 63
_MAX_NAME = 253
_MAX_REASON = 100

_COMMON = ("type", "interval", "timeout", "rise", "fall")
_HTTP = (CheckType.HTTP, CheckType.HTTPS)
_OWNERS: dict[str, tuple[CheckType, ...]] = {
    "port": tuple(kind for kind in CheckType if kind is not CheckType.PING),
    "path": _HTTP,
    "method": _HTTP,
    "host": (*_HTTP, CheckType.TLS),
    "headers": _HTTP,
    "verify": (CheckType.HTTPS, CheckType.TLS),
    "payload": (CheckType.UDP,),
    "payload_hex": (CheckType.UDP,),
    "query": (CheckType.DNS,),
    "command": (CheckType.EXEC,),
    "expect": (*_HTTP, CheckType.UDP),
    "via": CAN_ASK_VIP,
}
"""Which types of check a key belongs to."""
_EXPECT_OWNERS = {"status": _HTTP, "body": (*_HTTP, CheckType.UDP), "match": (*_HTTP, CheckType.UDP)}

_PATH = re.compile(r"/[!-~]*")
_METHOD = re.compile(r"[A-Z]{1,20}")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
"""A token of RFC 9110, section 5.6.2."""
_OWN_HEADERS = ("connection", "content-length", "transfer-encoding")
"""A check sends no body, and nothing after its one request."""
_HEADER_VALUE = re.compile(r"[\t -~]*")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_STATUS = re.compile(r"([2-5][0-9]{2})(?:-([2-5][0-9]{2}))?")
"""Answers below 200 are followed by another (RFC 9110, section 15.2)."""


PASSIVE_KEYS = ("failures", "inhibit", "longest")
_Passive = TypeVar("_Passive", bound=PassiveCheck)


def parse_health(field: Field) -> HealthCheck:
    """The active check of a service. Raises ConfigError."""
    keys = field.keys((*_COMMON, *_OWNERS), required=("type",))
    kind = keys["type"].choice(CheckType)
    _check_owners(keys, kind, _OWNERS)
    default = HealthCheck(kind)
    method = keys["method"].parse(_parse_method, "a method such as GET") if "method" in keys else "GET"
    check = HealthCheck(
        type=kind,
        interval_s=keys["interval"].duration(*INTERVAL_S) if "interval" in keys else default.interval_s,
        timeout_s=keys["timeout"].duration(*TIMEOUT_S) if "timeout" in keys else default.timeout_s,
        rise=keys["rise"].integer(1, MAX_IN_A_ROW) if "rise" in keys else default.rise,
        fall=keys["fall"].integer(1, MAX_IN_A_ROW) if "fall" in keys else default.fall,
        port=keys["port"].integer(FIRST_PORT, LAST_PORT) if "port" in keys else None,
        path=keys["path"].parse(_parse_path, "a path such as /health") if "path" in keys else default.path,
        method=method,
        host=keys["host"].parse(_parse_host, "a host name") if "host" in keys else None,
        headers=_parse_headers(keys["headers"]) if "headers" in keys else (),
        verify=keys["verify"].flag() if "verify" in keys else default.verify,
        payload=_parse_payload(keys),
        query=keys["query"].parse(_parse_query, "a name such as example.com") if "query" in keys else ".",
        command=_parse_command(field, keys) if kind is CheckType.EXEC else (),
        expect=_parse_expect(keys["expect"], kind, method) if "expect" in keys else default.expect,
        via=keys["via"].choice(Via) if "via" in keys else None,
    )
    if check.via is Via.VIP and not hears_of_failure(check):
        raise keys["via"].error(
            "through the VIP nobody hears that a UDP port is closed; expect an answer, or use backend"
        )
    return check


def parse_passive(field: Field) -> PassiveCheck | None:
    """How backends are judged by their flows; None where they are not. Raises ConfigError."""
    return read_passive(field, PassiveCheck(), PASSIVE_KEYS)[0]


def read_passive(
    field: Field, default: _Passive, names: tuple[str, ...]
) -> tuple[_Passive | None, dict[str, Field]]:
    """`default` with what the keys of `PASSIVE_KEYS` say, None for false, and all keys that are there.

    `names` are those that there may be. Raises ConfigError.
    """
    if not field.is_mapping():
        wanted = f"true, false or a mapping with the keys {', '.join(names)}"
        return (default if field.flag(wanted) else None), {}
    keys = field.keys(names, required=())
    inhibit_s = keys["inhibit"].duration(*INTERVAL_S) if "inhibit" in keys else default.inhibit_s
    longest_s = max(default.longest_s, inhibit_s)
    if "longest" in keys:
        longest_s = keys["longest"].duration(INTERVAL_S[0], LONGEST_INHIBIT_S)
        if longest_s < inhibit_s:
            raise keys["longest"].error(
                f"is shorter than inhibit, which is {show_duration(inhibit_s)}; make it that or more"
            )
    failures = keys["failures"].integer(1, _MAX_PASSIVE_FAILURES) if "failures" in keys else default.failures
    return replace(default, failures=failures, inhibit_s=inhibit_s, longest_s=longest_s), keys


def _check_owners(keys: dict[str, Field], kind: CheckType, owners: dict[str, tuple[CheckType, ...]]) -> None:
    for name, field in keys.items():
        if name in owners and kind not in owners[name]:
            known = ", ".join(owners[name])
            raise field.error(f"belongs to checks of type {known}, and this is {kind}; remove it")


def _parse_headers(field: Field) -> tuple[tuple[str, str], ...]:
    seen: dict[str, str] = {}
    headers: list[tuple[str, str]] = []
    for name, item in field.entries("header names and values"):
        if not HEADER_NAME.fullmatch(name):
            raise item.error(f"{quoted(name)} is not the name of a header; use letters, digits and -")
        if name.lower() == "host":
            raise item.error('has a key of its own; write it as "host" beside "headers"')
        if name.lower() in _OWN_HEADERS:
            raise item.error("is set by the check itself; remove it")
        if other := seen.get(name.lower()):
            raise item.error(f"is the same header as {other}; remove one of the two")
        seen[name.lower()] = name
        value = item.text("the header's value")
        if not _HEADER_VALUE.fullmatch(value) or len(value) > _MAX_TEXT:
            raise item.error(
                f"{quoted(value)} is not the value of a header; "
                f"use at most {_MAX_TEXT} characters of ASCII on one line"
            )
        headers.append((name, value.strip()))
    return tuple(headers)


def _parse_payload(keys: dict[str, Field]) -> bytes:
    if "payload_hex" in keys:
        if "payload" in keys:
            raise keys["payload_hex"].error("payload is given, too; remove one of the two")
        return keys["payload_hex"].parse(_parse_hex, "hexadecimal digits")
    return keys["payload"].parse(_parse_payload_text, "text") if "payload" in keys else b""


def _parse_command(check: Field, keys: dict[str, Field]) -> tuple[str, ...]:
    if "command" not in keys:
        raise check.error(
            "a check of type exec needs a command; add one, as in command: [/usr/local/bin/check]"
        )
    items = keys["command"].items_or_one("words")
    if not items:
        raise keys["command"].error("the list is empty; add the path of a program")
    if len(items) > _MAX_WORDS:
        raise items[_MAX_WORDS].error(f"there are {len(items)} words; use at most {_MAX_WORDS}")
    words = [item.parse(_parse_word, "a word") for item in items]
    if not words[0].startswith("/"):
        raise items[0].error(f"{quoted(words[0])} is not an absolute path; begin with / and use no shell")
    return tuple(words)


def _parse_expect(field: Field, kind: CheckType, method: str) -> Expectation:
    keys = field.keys(tuple(_EXPECT_OWNERS), required=())
    _check_owners(keys, kind, _EXPECT_OWNERS)
    if method == "HEAD" and (asked := keys.get("body") or keys.get("match")):
        raise asked.error("answers to HEAD have no body; remove it, or use GET")
    default = Expectation()
    status = default.status
    if "status" in keys:
        ranges = keys["status"].distinct(parse_status, "a status such as 200 or 200-299", "statuses")
        status = tuple(value for value, _ in ranges)
    return Expectation(
        status=status,
        body=keys["body"].parse(_parse_text, "text") if "body" in keys else None,
        pattern=keys["match"].parse(parse_pattern, "a regular expression") if "match" in keys else None,
    )


def parse_status(text: str) -> tuple[int, int]:
    """The first and the last of a range of HTTP status codes, or one code twice. ValueError otherwise."""
    if not (match := _STATUS.fullmatch(text)):
        raise ValueError(f"{quoted(text)} is not a status; write 200 to 599, or a range as in 200-299")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise ValueError(f'the range {first}-{last} runs backwards; write "{last}-{first}"')
    return first, last


def _parse_method(text: str) -> str:
    if not _METHOD.fullmatch(text):
        raise ValueError(f"{quoted(text)} is not a method; write it in capitals, as in GET or HEAD")
    return text


def _parse_path(text: str) -> str:
    if not _PATH.fullmatch(text) or len(text) > _MAX_PATH:
        raise ValueError(
            f"{quoted(text)} is not a path; begin with /, and use at most {_MAX_PATH} characters of ASCII "
            "without spaces"
        )
    return text


def _parse_host(text: str) -> str:
    if not _HOST.fullmatch(text) or len(text) > _MAX_NAME:
        raise ValueError(f"{quoted(text)} is not a host name; write it without a port, as in www.example.com")
    return text


def _parse_query(text: str) -> str:
    """A name as DNS carries it (RFC 1035, section 2.3.4)."""
    name = text.removesuffix(".")
    labels = name.split(".") if name else []
    if not text or len(name) > _MAX_NAME or not all(_is_label(label) for label in labels):
        raise ValueError(
            f'{quoted(text)} is not a name of DNS; write it as in www.example.com, or "." for the root'
        )
    return text


def _is_label(text: str) -> bool:
    return (
        0 < len(text) <= _MAX_LABEL and text.isascii() and text.isprintable() and not set(text) & set(' "\\')
    )


def _parse_hex(text: str) -> bytes:
    if not _HEX.fullmatch(text):
        raise ValueError(f"{quoted(text)} is not bytes; write two digits of 0-9 and a-f for each")
    return _bounded(bytes.fromhex(text))


def _parse_payload_text(text: str) -> bytes:
    return _bounded(_encoded(text))


def _bounded(payload: bytes) -> bytes:
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"has {len(payload)} bytes; use at most {MAX_PAYLOAD}, which every path carries")
    return payload


def _encoded(text: str) -> bytes:
    """As UTF-8. The escapes of YAML can make halves of characters, which are nothing that could be sent."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{quoted(text)} has half a character in it; write it without \\ud800 to \\udfff"
        ) from None


def _parse_word(text: str) -> str:
    _encoded(text)
    if "\0" in text:
        raise ValueError(
            f"{quoted(text)} has a zero character in it, which no program can be given; remove it"
        )
    if len(text) > _MAX_TEXT:
        raise ValueError(f"has {len(text)} characters; use at most {_MAX_TEXT}")
    return text


def _parse_text(text: str) -> str:
    _encoded(text)
    if not text:
        raise ValueError(
            "is empty, and everything contains that; write what must be there, or remove the key"
        )
    if len(text) > _MAX_TEXT:
        raise ValueError(f"has {len(text)} characters; use at most {_MAX_TEXT}")
    return text


def parse_pattern(text: str) -> str:
    """A regular expression of Python, as text. ValueError otherwise."""
    _parse_text(text)
    try:
        with warnings.catch_warnings():
            # What Python only warns of will mean something else some day.
            warnings.simplefilter("error")
            re.compile(text)
    except re.error as error:
        at = "" if error.pos is None else f" at character {error.pos + 1}"
        reason = f"{error.msg[:_MAX_REASON]}{at}"
        raise ValueError(f"{quoted(text)} is not a regular expression: {reason}; correct it") from None
    except (OverflowError, RecursionError, Warning) as error:
        reason = str(error)[:_MAX_REASON]
        raise ValueError(f"{quoted(text)} is not a regular expression: {reason}; make it simpler") from None
    return text
