"""Expressions of nftables rules as netlink attributes, for rules that the `nft` program cannot write.

Layouts are those of linux/netfilter/nf_tables.h. Registers are NFT_REG32_00 to NFT_REG32_15, of 4 bytes each
and numbered from `FIRST_REGISTER`; a value takes one for each 4 bytes that it has begun. An expression that
finds nothing (a header that is not there) ends its rule, and the packet goes on to the next.
"""

from __future__ import annotations

import struct

from l4lb.net.netlink import build_attribute, build_nested

FIRST_REGISTER = 8
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
META_MARK, META_L4PROTO = 3, 16
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


def mask_number(register: int, mask: int) -> bytes:
    """Keeps the bits of `mask` of a 4-byte number in the host's byte order."""
    values = (build_nested(kind, build_attribute(1, struct.pack("=I", n))) for kind, n in ((4, mask), (5, 0)))
    return build_expression("bitwise", _be32(1, register), _be32(2, register), _be32(3, 4), *values)


def change_map(name: str, action: int, key: int, value: int) -> bytes:
    """`UPDATE`: adds the element, or renews the lease of one that is there. `DELETE`: removes it."""
    named = build_attribute(1, name.encode() + b"\0")
    return build_expression("dynset", named, _be32(3, action), _be32(4, key), _be32(5, value))


def _be32(kind: int, value: int) -> bytes:
    return build_attribute(kind, struct.pack(">I", value))
