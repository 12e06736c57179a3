"""The Internet checksum in the pieces that a rewrite needs (RFC 1071, RFC 1624)."""

from __future__ import annotations


def adjust(checksum: int, old: bytes, new: bytes) -> int:
    """`checksum` after `old` became `new` in what it covers: RFC 1624, equation 3. Both have whole words."""
    inverted = bytes(byte ^ 0xFF for byte in old)
    return complement(add_up(complement(checksum).to_bytes(2, "big") + inverted + new))


def complement(x: int) -> int:
    """The one's complement of a 16-bit number."""
    return x ^ 0xFFFF


def add_up(data: bytes) -> int:
    """The one's complement sum of `data` in 16-bit words (RFC 1071)."""
    padded = data + bytes(len(data) % 2)
    total = sum(int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total
