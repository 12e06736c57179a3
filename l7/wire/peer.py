"""Who speaks: the other end of a client's connection, or the client that a trusted proxy speaks for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from l4lb.model import Address


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """What is known of a client's TLS connection."""

    version: str
    """`TLSv1.3`."""
    cipher: str
    """OpenSSL's name."""
    server_name: str | None = None
    """SNI."""
    subject: str = ""
    """Of the client's certificate (RFC 2253), empty without one."""
    verification: str = "NONE"
    """`SUCCESS`, or `NONE` without a certificate."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One end of a connection, as routes, pools, templates and logs see it."""

    address: str
    """As text; an IPv4 address that came over an IPv6 socket is IPv4."""
    packed: bytes
    """4 or 16 bytes, in network order."""
    port: int
    """0 where it is not known."""
    listener: str
    """The name of the listener."""
    scheme: bytes
    """`http` or `https`."""
    local_address: str
    """What the client connected to."""
    local_port: int
    """What the client connected to."""
    forwarded_for: bytes
    """The value of X-Forwarded-For that goes on."""
    tls: TlsInfo | None = None


def make_peer(
    listener: str, scheme: bytes, client: tuple[str, int], local: tuple[str, int], tls: TlsInfo | None = None
) -> Peer:
    """The peer of a connection, from the addresses of its socket or of its PROXY header, host and port each.

    ValueError for what is no address.
    """
    text, packed, encoded = _forms(client[0])
    return Peer(text, packed, client[1], listener, scheme, _forms(local[0])[0], local[1], encoded, tls)


@lru_cache(maxsize=4096)
def _forms(text: str) -> tuple[str, bytes, bytes]:
    """An address as text, packed and as a header's value; writing them takes 5 µs, for each connection."""
    address = read_address(text)
    return str(address), address.packed, str(address).encode("ascii")


@lru_cache(maxsize=4096)
def read_address(text: str) -> Address:
    """An address without its zone (`%eth0`); IPv4 in IPv6 becomes IPv4. ValueError for anything else."""
    address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
