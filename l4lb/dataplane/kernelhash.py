"""The hash that nftables and the cores share: jhash of linux/jhash.h (Jenkins' lookup3), as `jhash` in a
rule gives it.

With `on_failure: hash` the kernel chooses backends without the daemon. So that both choose alike, a flow
that began in one way can go on in the other: when the daemon comes back, and when a queue overflows between
two packets.
"""

from __future__ import annotations

import struct

_INITIAL = 0xDEADBEEF
_MASK = 0xFFFF_FFFF


def kernel_hash(seed: int, client: bytes, client_port: int | None) -> int:
    """32 bits for a client's address and port; None for the address alone.

    nft lays a port out in four bytes of a register: `jhash ip saddr . th sport seed …`.
    """
    port = b"" if client_port is None else struct.pack("!HH", client_port, 0)
    return jhash(client + port, seed)


def jhash(data: bytes, seed: int) -> int:
    """32 bits of any bytes, on a little-endian machine."""
    a = b = c = (_INITIAL + len(data) + seed) & _MASK
    while len(data) > 12:
        x, y, z = struct.unpack_from("<III", data)
        a, b, c = _mix((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)
        data = data[12:]
    if not data:
        return c
    x, y, z = struct.unpack("<III", data + bytes(12 - len(data)))
    return _finish((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    a = (a - c & _MASK) ^ _rotate(c, 4)
    c = c + b & _MASK
    b = (b - a & _MASK) ^ _rotate(a, 6)
    a = a + c & _MASK
    c = (c - b & _MASK) ^ _rotate(b, 8)
    b = b + a & _MASK
    a = (a - c & _MASK) ^ _rotate(c, 16)
    c = c + b & _MASK
    b = (b - a & _MASK) ^ _rotate(a, 19)
    a = a + c & _MASK
    c = (c - b & _MASK) ^ _rotate(b, 4)
    b = b + a & _MASK
    return a, b, c


def _finish(a: int, b: int, c: int) -> int:
    c = (c ^ b) - _rotate(b, 14) & _MASK
    a = (a ^ c) - _rotate(c, 11) & _MASK
    b = (b ^ a) - _rotate(a, 25) & _MASK
    c = (c ^ b) - _rotate(b, 16) & _MASK
    a = (a ^ c) - _rotate(c, 4) & _MASK
    b = (b ^ a) - _rotate(a, 14) & _MASK
    return (c ^ b) - _rotate(b, 24) & _MASK


def _rotate(x: int, bits: int) -> int:
    return (x << bits | x >> 32 - bits) & _MASK
