"""Expressions of nftables rules as netlink attributes, for rules that the `nft` program cannot write.

Layouts are those of linux/netfilter/nf_tables.h. Registers are NFT_REG32_00 to NFT_REG32_15, of 4 bytes each
and numbered from `FIRST_REGISTER`; a value takes one for each 4 bytes that it has begun. An expression that
finds nothing (a header that is not there) ends its rule, and the packet goes on to the next.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from l4lb.net.netlink import build_attribute, build_nested

FIRST_REGISTER = 8
LINK_HEADER, NETWORK_HEADER, TRANSPORT_HEADER = 0, 1, 2
META_MARK, META_OIF, META_L4PROTO = 3, 5, 16
UPDATE, DELETE = 1, 2


def build_expression(name: str, *attributes: bytes) -> bytes:
    """NFTA_LIST_ELEM with the expression `name`."""
    return build_nested(1, build_attribute(1, name.encode() + b"\0"), build_nested(2, *attributes))


def load_payload(base: int, offset: int, length: int, to: int) -> bytes:
    """Loads `length` bytes of a header."""
    return build_expression("payload", _be32(1, to), _be32(2, base), _be32(3, offset), _be32(4, length))


def load_meta(key: int, to: int) -> bytes:
    """Loads what the kernel knows about the packet."""
    return build_expression("meta", _be32(1, to), _be32(2, key))


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a change of a header makes the kernel correct: the internet checksum at `offset` of the same
    header, and with `pseudo_header` that of the transport header, whatever it is."""

    offset: int | None
    pseudo_header: bool = False


def write_payload(base: int, offset: int, length: int, from_: int, checksum: Checksum | None = None) -> bytes:
    """Writes `length` bytes of a header."""
    corrected = []
    if checksum is not None:
        kind, place = (0, 0) if checksum.offset is None else (1, checksum.offset)
        corrected = [_be32(6, kind), _be32(7, place), _be32(8, int(checksum.pseudo_header))]
    return build_expression(
        "payload", _be32(2, base), _be32(3, offset), _be32(4, length), _be32(5, from_), *corrected
    )


def mask_number(register: int, mask: int) -> bytes:
    """Keeps the bits of `mask` of a 4-byte number in the host's byte order."""
    return mask_bytes(register, struct.pack("=I", mask))


def mask_bytes(register: int, mask: bytes) -> bytes:
    """Keeps the bits of `mask` of as many bytes."""
    values = (
        build_nested(kind, build_attribute(1, word)) for kind, word in ((4, mask), (5, bytes(len(mask))))
    )
    return build_expression("bitwise", _be32(1, register), _be32(2, register), _be32(3, len(mask)), *values)


def compare(register: int, value: bytes, *, equal: bool = True) -> bytes:
    """Ends the rule unless the register has that value, or has another."""
    return build_expression(
        "cmp", _be32(1, register), _be32(2, int(not equal)), build_nested(3, build_attribute(1, value))
    )


def look_up(name: str, key: int, value: int | None = None) -> bytes:
    """Ends the rule where a set has not the key; loads what a map has for it."""
    loaded = () if value is None else (_be32(3, value),)
    return build_expression("lookup", build_attribute(1, name.encode() + b"\0"), _be32(2, key), *loaded)


def forward(device: int) -> bytes:
    """Sends the packet, with the link header that it has, by the device whose index the register has."""
    return build_expression("fwd", _be32(1, device))


def change_map(name: str, action: int, key: int, value: int) -> bytes:
    """`UPDATE`: adds the element, or renews the lease of one that is there. `DELETE`: removes it."""
    named = build_attribute(1, name.encode() + b"\0")
    return build_expression("dynset", named, _be32(3, action), _be32(4, key), _be32(5, value))


def _be32(kind: int, value: int) -> bytes:
    return build_attribute(kind, struct.pack(">I", value))
