"""Networks, and addresses that no port follows. Each parser raises ValueError with the reason.

    network   10.0.0.0/8   2001:db8::/32   10.2.0.11   2001:db8::11     an address is the network of it alone
    address   10.2.0.1     2001:db8::1

Where no port can follow, IPv6 needs no brackets; a pair around the whole is taken off, for elsewhere in the
file they are required.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from l4lb.control.endpoint import parse_address
from l4lb.control.message import quoted
from l4lb.model import Address, Network

_BITS = re.compile(r"0|[1-9][0-9]{0,2}")
_MAPPED_BITS = 96

_NO_SOURCE: tuple[Network, ...] = (
    *map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3")),
    *map(IPv6Network, ("::/127", "::ffff:0:0/96", "fe80::/10", "ff00::/8")),
)
"""Unspecified, loopback, link-local, multicast, reserved or mapped: hosts drop packets from there."""


def parse_network(text: str) -> Network:
    """An address with the number of its leading bits that count, all without one."""
    host, slash, length = _without_brackets(text).partition("/")
    address = _parse_host(host, text)
    bits: int = address.max_prefixlen
    if slash:
        if not _BITS.fullmatch(length) or int(length) > bits:
            raise ValueError(
                f'{quoted(text)} is not a network; behind the "/" stands a number from 0 to {bits}'
            )
        bits = int(length)
    network = ip_network((address.packed, bits), strict=False)
    if network.network_address != address:
        raise ValueError(
            f'{quoted(text)} has bits of a host behind the network\'s {bits}; write "{network}", '
            f'or "{address}" for the one address'
        )
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None and bits >= _MAPPED_BITS:
        raise ValueError(
            f"{quoted(text)} is an IPv4 network in IPv6 form; "
            f'write "{address.ipv4_mapped}/{bits - _MAPPED_BITS}"'
        )
    return network


def parse_source_network(text: str) -> Network:
    """A network whose addresses packets can come from."""
    network = parse_network(text)
    for useless in _NO_SOURCE:
        if network.version == useless.version and (
            useless.network_address in network or network.network_address in useless
        ):
            raise ValueError(
                f"{network} overlaps with {useless}, from where hosts take no packets; use another network"
            )
    return network


def parse_plain_address(text: str) -> Address:
    """One address that packets can be routed to, without a port."""
    bare = _without_brackets(text)
    if "/" in bare:
        raise ValueError(f"{quoted(text)} is not an address; name single addresses")
    if bare.count(":") == 1:
        raise ValueError(f"{quoted(text)} is not an address; leave the port out")
    return parse_address(f"[{bare}]" if ":" in bare else bare)


def _parse_host(host: str, text: str) -> Address:
    try:
        if "%" not in host:
            return IPv6Address(host) if ":" in host else IPv4Address(host)
    except AddressValueError:
        pass
    raise ValueError(
        f"{quoted(text)} is not a network; write an address or a network such as 10.0.0.0/8 or 2001:db8::/32"
    )


def _without_brackets(text: str) -> str:
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text
