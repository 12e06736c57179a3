"""Addresses, endpoints and listens as operators write them. Each parser raises ValueError with the reason.

    listen    ADDRESS:PORTS/PROTOCOLS   203.0.113.10:80/tcp   203.0.113.10:8000-8100/tcp
                                        [2001:db8::1]:53/tcp+udp   203.0.113.10:any/udp
    backend   ADDRESS[:PORT]            10.2.0.11:8080   10.2.0.11   [2001:db8::11]:80   [2001:db8::11]
    local     ADDRESS:PORT              127.0.0.1:9100   [::]:9100

An IPv6 address stands in brackets: without them `2001:db8::11:8080` is a valid address of another
machine. Protocols are joined with `+`, because a comma separates items in a YAML list.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from l4lb.control.message import nearest, quoted
from l4lb.model import FIRST_PORT, LAST_PORT, Address, Listen, Protocol

_NUMERIC = re.compile(r"[0-9.]+")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")
_PROTOCOLS = {protocol.name.lower(): protocol for protocol in Protocol}
_BROADCAST = IPv4Address("255.255.255.255")


def parse_address(text: str) -> Address:
    """One address that packets can be routed to; IPv6 in brackets."""
    if text.startswith("[") and text.endswith("]"):
        return _parse_ipv6(text[1:-1])
    if ":" in text:
        raise ValueError(
            f"{quoted(text)} is not an address; an IPv6 address needs brackets: {quoted(f'[{text}]')}"
        )
    try:
        address = IPv4Address(text)
    except AddressValueError:
        if _NUMERIC.fullmatch(text):
            advice = "write four numbers from 0 to 255 without leading zeros"
        else:
            advice = "names are not looked up"
        raise ValueError(f"{quoted(text)} is not an IP address; {advice}") from None
    if address == _BROADCAST:
        raise ValueError(f"{address} is the broadcast address; use a unicast address")
    return _unicast(address)


@lru_cache(maxsize=1 << 17)
def parse_endpoint(text: str) -> tuple[Address, int | None]:
    """A backend's address and port; None keeps the port that the client addressed.

    Results are kept, for a reload reads every backend again.
    """
    host, port = split_port(text)
    return parse_address(host), None if port is None else parse_port(port)


def parse_local_endpoint(text: str) -> tuple[Address, int]:
    """Where a program of this host listens: loopback and unspecified addresses are right, a port is
    needed."""
    host, port = split_port(text)
    if port is None:
        raise ValueError(f'{quoted(text)} has no port; add one, as in "{_shown(text)}:9100"')
    bare = host[1:-1] if host.startswith("[") else host
    try:
        address: Address = IPv6Address(bare) if host.startswith("[") else IPv4Address(bare)
    except AddressValueError:
        raise ValueError(f"{quoted(host)} is not an IP address; names are not looked up") from None
    if address.is_multicast or address == _BROADCAST:
        raise ValueError(f"{address} is an address that no program listens on; use one of this host")
    return address, parse_port(port)


def parse_port(text: str) -> int:
    """A port from 1 to 65535."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{quoted(text)} is not a port; use a number from {FIRST_PORT} to {LAST_PORT}")
    port = int(text)
    if not FIRST_PORT <= port <= LAST_PORT:
        raise ValueError(f"port {port} is out of range; use {FIRST_PORT} to {LAST_PORT}")
    return port


def parse_port_range(text: str) -> tuple[int, int]:
    """The first and the last of several ports."""
    low, dash, high = text.partition("-")
    if not dash:
        raise ValueError(
            f'{quoted(text)} is not a range of ports; write its first and last, as in "1024-32767"'
        )
    first, last = parse_port(low), parse_port(high)
    if last < first:
        raise ValueError(f'the port range {first}-{last} runs backwards; write "{last}-{first}"')
    return first, last


def parse_listen(text: str) -> tuple[Listen, ...]:
    """What one listen stands for: one `Listen` for each of its protocols."""
    endpoint, slash, names = text.partition("/")
    host, ports = split_port(endpoint)
    address = parse_address(host)
    if ports is None:
        raise ValueError(f'{quoted(text)} has no port; add one, as in "{_shown(endpoint)}:80/tcp"')
    if not slash:
        raise ValueError(f'{quoted(text)} has no protocol; add one, as in "{_shown(text)}/tcp"')
    first, last = _parse_ports(ports)
    return tuple(Listen(address, protocol, first, last) for protocol in _parse_protocols(names))


def _parse_ports(text: str) -> tuple[int, int]:
    if text == "any":
        return FIRST_PORT, LAST_PORT
    if "-" not in text:
        port = parse_port(text)
        return port, port
    return parse_port_range(text)


def _parse_protocols(text: str) -> list[Protocol]:
    if "," in text:
        raise ValueError(f'several protocols are joined with "+"; write "{_shown(text.replace(",", "+"))}"')
    found: list[Protocol] = []
    for name in text.split("+"):
        protocol = _PROTOCOLS.get(name)
        if protocol is None:
            raise ValueError(f"unknown protocol {quoted(name)}; {nearest(name, _PROTOCOLS)}")
        if protocol in found:
            raise ValueError(f"the protocol {name} stands here twice; remove one of the two")
        found.append(protocol)
    return found


def split_port(text: str) -> tuple[str, str | None]:
    """The host, in the brackets that it stands in, and the port of `host:port`; None where there is no colon
    behind the host."""
    if text.startswith("["):
        inside, bracket, rest = text.partition("]")
        host = inside + bracket
        if not bracket:
            raise ValueError(f'{quoted(text)} is not an endpoint; the bracket is not closed, add "]"')
        if not rest:
            return host, None
        if not rest.startswith(":"):
            raise ValueError(f'{quoted(text)} is not an endpoint; a ":" and a port follow the bracket')
        return host, rest[1:]
    if text.count(":") > 1:
        example = _with_brackets(text)
        raise ValueError(f"{quoted(text)} is not an endpoint; an IPv6 address needs brackets{example}")
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _with_brackets(text: str) -> str:
    """What was probably meant by an IPv6 endpoint without brackets, where that is clear."""
    host, _, port = text.rpartition(":")
    for address, end in ((host, f":{port}"), (text, "")):
        try:
            parsed = IPv6Address(address)
        except AddressValueError:
            continue
        return f', as in "[{parsed}]{_shown(end)}"'
    return ""


def _parse_ipv6(text: str) -> Address:
    if "%" in text:
        raise ValueError(
            f"{quoted(text)} has a zone; a link-local address cannot be balanced, use a global one"
        )
    try:
        address = IPv6Address(text)
    except AddressValueError:
        raise ValueError(f"{quoted(text)} is not an IPv6 address; write it as in 2001:db8::1") from None
    if address.ipv4_mapped is not None:
        raise ValueError(f'{address} is an IPv4 address in IPv6 form; write "{address.ipv4_mapped}"')
    if address.is_link_local:
        raise ValueError(f"{address} is a link-local address, which cannot be routed; use a global one")
    return _unicast(address)


def _unicast(address: Address) -> Address:
    if address.is_unspecified:
        raise ValueError(f"{address} is the unspecified address; name the address itself")
    if address.is_loopback:
        raise ValueError(f"{address} is a loopback address, which packets cannot be routed to; use another")
    if address.is_multicast:
        raise ValueError(f"{address} is a multicast address; use a unicast address")
    return address


def _shown(text: str) -> str:
    return quoted(text)[1:-1]
