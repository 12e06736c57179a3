"""Names, hosts, paths and other words of the section. Each parser raises ValueError with the reason.

host       example.com   *.example.com   10.0.0.1   [2001:db8::1]
path       /api/         decoded, as it is matched: no %41, no //, no /../
backend    10.0.0.1:8080   [2001:db8::1]:80   api.internal:8080
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from l4lb.control.endpoint import parse_port, split_port
from l4lb.control.health_keys import HEADER_NAME
from l4lb.control.message import quoted
from l4lb.model import Address
from l7.model import BackendAddress

MAX_NAME = 100
_MAX_HOST = 253
_MAX_PATH = 2000

_NAME = re.compile(r"[A-Za-z0-9_.:/*~^$#\[\]-]+")
_POOL_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC = re.compile(r"[0-9.]+")
_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
_COOKIE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
"""A token (RFC 6265, section 4.1.1)."""
_METHOD = re.compile(r"[A-Za-z_-]{1,32}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}\$?")

FRAMING = frozenset(
    {
        *("connection", "content-length", "transfer-encoding", "upgrade", "keep-alive", "te", "trailer"),
        *("proxy-connection", "expect"),
    }
)
"""Headers of a connection or of a message's framing, which the proxy writes itself."""


def parse_name(text: str) -> str:
    """The name of a listener or route; it stands in tables, labels of metrics and on command lines."""
    return _named(text, _NAME, "letters, digits and -_.:/*")


def parse_pool_name(text: str) -> str:
    """The name of a pool."""
    return _named(text, _POOL_NAME, "letters, digits and -_.")


def _named(text: str, pattern: re.Pattern[str], characters: str) -> str:
    if len(text) > MAX_NAME:
        raise ValueError(f"{quoted(text)} has {len(text)} characters; use at most {MAX_NAME}")
    if not pattern.fullmatch(text):
        raise ValueError(f"{quoted(text)} is not a name; use {characters}")
    return text


def parse_host(text: str) -> str:
    """A host as requests name it, in lower case; `*.` stands for any number of labels before it."""
    lowered = text.lower().removesuffix(".")
    if lowered.startswith("["):
        if not lowered.endswith("]"):
            raise ValueError(f"{quoted(text)} is not a host; leave the port out")
        return f"[{_ipv6(lowered[1:-1])}]"
    if lowered == "*":
        raise ValueError('"*" is every host; leave the key out')
    if ":" in lowered:
        raise ValueError(f"{quoted(text)} is not a host; leave the port out, and put IPv6 into brackets")
    name = lowered.removeprefix("*.")
    if "*" in name:
        raise ValueError(
            f"{quoted(text)}: an asterisk stands for whole labels at the beginning; "
            'write it as in "*.example.com"'
        )
    _check_name(name, text)
    return lowered


def parse_server_name(text: str) -> str:
    """A name of SNI: a host that is no address."""
    name = parse_host(text)
    if name.startswith("[") or _NUMERIC.fullmatch(name):
        raise ValueError(f"{quoted(text)} is an address, and clients send none as server name; use a name")
    return name


def parse_backend_address(text: str) -> BackendAddress:
    """Where a backend is. Loopback is right here, for the proxy connects by itself; a name is looked up."""
    host, port = split_port(text)
    if port is None:
        raise ValueError(f'{quoted(text)} has no port; add one, as in "{quoted(text)[1:-1]}:8080"')
    return BackendAddress(_parse_backend_host(host), parse_port(port))


def _parse_backend_host(host: str) -> Address | str:
    address: Address
    if host.startswith("["):
        address = _ipv6(host[1:-1])
    elif _NUMERIC.fullmatch(host):
        try:
            address = IPv4Address(host)
        except AddressValueError:
            raise ValueError(
                f"{quoted(host)} is not an IP address; write four numbers from 0 to 255 without leading zeros"
            ) from None
    else:
        name = host.lower().removesuffix(".")
        _check_name(name, host)
        return name
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"{address} is an address of no server; use a unicast address")
    return address


def _ipv6(text: str) -> IPv6Address:
    try:
        if "%" not in text:
            return IPv6Address(text)
    except AddressValueError:
        pass
    raise ValueError(f"{quoted(text)} is not an IPv6 address; write it as in 2001:db8::1")


def _check_name(name: str, text: str) -> None:
    """A name of DNS as hosts have it; an underscore is common enough to be let through."""
    if len(name) > _MAX_HOST or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError(
            f"{quoted(text)} is not a host name; use letters, digits, - and dots, as in www.example.com"
        )


def parse_path(text: str) -> str:
    """A path as requests are matched: decoded, without empty and dot segments."""
    if not text.startswith("/"):
        raise ValueError(f"{quoted(text)} is not a path; begin with /")
    if len(text) > _MAX_PATH:
        raise ValueError(f"has {len(text)} characters; use at most {_MAX_PATH}")
    if any(ord(c) < 0x20 or ord(c) == 0x7F or 0xD800 <= ord(c) < 0xE000 for c in text):
        raise ValueError(f"{quoted(text)} has a character in it that no path has; remove it")
    if "?" in text:
        raise ValueError(f'{quoted(text)} has a query; match parameters by "query", beside the path')
    if _ENCODED.search(text):
        raise ValueError(f"{quoted(text)}: paths are compared decoded; write the characters themselves")
    if "//" in text or any(segment in (".", "..") for segment in text.split("/")):
        raise ValueError(
            f"{quoted(text)} can never be found, for requests lose empty and dot segments; write it without"
        )
    return text


def parse_header_name(text: str) -> bytes:
    """The name of a header that may be matched."""
    if not HEADER_NAME.fullmatch(text):
        raise ValueError(f"{quoted(text)} is not the name of a header; use letters, digits and -")
    return text.encode()


def parse_edited_header(text: str) -> bytes:
    """The name of a header that may be set or removed."""
    name = parse_header_name(text)
    if text.lower() in FRAMING:
        raise ValueError(f"{text} belongs to the connection, and the proxy writes it itself; remove it")
    return name


def parse_cookie_name(text: str) -> bytes:
    """The name of a cookie."""
    if not _COOKIE.fullmatch(text):
        raise ValueError(f"{quoted(text)} is not the name of a cookie; use letters, digits, - and _")
    return text.encode()


def parse_method(text: str) -> bytes:
    """A method; their names are told apart by case (RFC 9110, section 9.1)."""
    if not _METHOD.fullmatch(text):
        raise ValueError(f"{quoted(text)} is not a method; write it as in GET")
    if text != text.upper():
        raise ValueError(f'{quoted(text)}: methods are written in capitals; write "{text.upper()}"')
    return text.encode()


def parse_user(text: str) -> str:
    """The name of a user or group."""
    if not _USER.fullmatch(text):
        raise ValueError(f"{quoted(text)} is not the name of a user or group; see getent passwd")
    return text


def parse_file(text: str) -> str:
    """An absolute path of a file."""
    if not text.startswith("/") or not text.isprintable():
        raise ValueError(f"{quoted(text)} is not an absolute path; begin with /")
    return text
