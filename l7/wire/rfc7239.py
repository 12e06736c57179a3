"""The Forwarded header (RFC 7239), and addresses as proxies write them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from l7.wire.peer import read_address

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = re.compile(rb"(" + _TOKEN + rb")=(?:(" + _TOKEN + rb')|"((?:[^"\\]|\\.)*)")')
_BETWEEN = re.compile(rb"[ \t]*([;,])[ \t]*")
_ESCAPED = re.compile(rb"\\(.)")
_PORT = re.compile(r"[0-9]{1,5}")
_LONGEST = 64
"""An IPv6 address with a zone, brackets and a port."""


def parse_elements(value: bytes) -> Sequence[Mapping[bytes, bytes]] | None:
    """The elements from left to right, each with its parameters by name in lower case.

    None where the header is malformed: whatever is added to such a one, others may read differently.
    """
    elements: list[dict[bytes, bytes]] = [{}]
    at = 0
    while at < len(value):
        pair = _PAIR.match(value, at)
        if pair is None:
            return None
        name = pair[1].lower()
        if name in elements[-1]:
            return None
        elements[-1][name] = pair[2] if pair[2] is not None else _ESCAPED.sub(rb"\1", pair[3])
        at = pair.end()
        if at == len(value):
            break
        between = _BETWEEN.match(value, at)
        if between is None or between.end() == len(value):
            return None
        if between[1] == b",":
            elements.append({})
        at = between.end()
    return elements


@dataclass(frozen=True, slots=True)
class Node:
    """An end of a connection as a proxy names it."""

    address: str
    packed: bytes
    port: int = 0
    """0 where it is not named."""

    @property
    def value(self) -> bytes:
        """As the value of `for=`, without the port."""
        return (f'"[{self.address}]"' if ":" in self.address else self.address).encode("ascii")


@lru_cache(maxsize=4096)
def parse_node(text: bytes) -> Node | None:
    """An address and perhaps a port: `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]`, `[2001:db8::1]:80`, and
    `2001:db8::1` as X-Forwarded-For has it. None for `unknown`, an obfuscated name and anything else."""
    if len(text) > _LONGEST:
        return None
    host, port = text.decode("ascii", "replace"), ""
    if host.startswith("["):
        host, closing, rest = host[1:].partition("]")
        if not closing or (rest and not rest.startswith(":")):
            return None
        port = rest[1:]
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    try:
        address = read_address(host)
    except ValueError:
        return None
    return Node(str(address), address.packed, int(port) if _PORT.fullmatch(port) else 0)
