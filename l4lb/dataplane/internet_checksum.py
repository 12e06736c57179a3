"""The Internet checksum (RFC 1071) and its incremental change (RFC 1624)."""

from __future__ import annotations


def sum_words(data: bytes | bytearray) -> int:
    """The one's complement sum of the 16-bit words of `data`, an odd last byte padded with 0.

    It is the number modulo 65535, with 0xffff for its multiples: 0 is the sum of zeros alone.
    """
    number = int.from_bytes(data, "big") << (8 * (len(data) & 1))
    return number % 0xFFFF or (0xFFFF if number else 0)


def compute(data: bytes | bytearray) -> int:
    """The checksum of `data`, whose checksum field is 0. Over data with its checksum the result is 0."""
    return ~sum_words(data) & 0xFFFF


def update(checksum: int, old: bytes, new: bytes) -> int:
    """`checksum` after the even number of bytes `old` became `new` (RFC 1624, equation 3)."""
    total = (~checksum & 0xFFFF) + (~sum_words(old) & 0xFFFF) + sum_words(new)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo_header(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """What transport checksums also cover (RFC 8200, section 8.1; RFC 793's has the same sum)."""
    return source + destination + length.to_bytes(4, "big") + protocol.to_bytes(4, "big")
