"""Keyed hashing and Maglev's table (docs/design/decision.md, section 7).

SipHash-2-4 is that of Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012); the table is
that of Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016),
section 3.4, extended by weights.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import count

_MASK_64 = (1 << 64) - 1
_EMPTY = -1


def siphash(key: bytes, data: bytes) -> int:
    """SipHash-2-4 of `data` under the 16-byte `key`, as an unsigned 64-bit number.

    Raises ValueError for a key of another length.
    """
    if len(key) != 16:
        raise ValueError(f"a SipHash key has 16 bytes, not {len(key)}")
    k0 = int.from_bytes(key[:8], "little")
    k1 = int.from_bytes(key[8:], "little")
    v = (
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    )
    # The last word holds what is left over, and the length modulo 256 in its top byte.
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v0, v1, v2, v3 = _sip_round(_sip_round((v[0], v[1], v[2], v[3] ^ word)))
        v = (v0 ^ word, v1, v2, v3)
    v = (v[0], v[1], v[2] ^ 0xFF, v[3])
    for _ in range(4):
        v = _sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def _sip_round(v: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    v0, v1, v2, v3 = v
    v0 = (v0 + v1) & _MASK_64
    v1 = _rotate(v1, 13) ^ v0
    v0 = _rotate(v0, 32)
    v2 = (v2 + v3) & _MASK_64
    v3 = _rotate(v3, 16) ^ v2
    v0 = (v0 + v3) & _MASK_64
    v3 = _rotate(v3, 21) ^ v0
    v2 = (v2 + v1) & _MASK_64
    v1 = _rotate(v1, 17) ^ v2
    v2 = _rotate(v2, 32)
    return v0, v1, v2, v3


def _rotate(x: int, bits: int) -> int:
    return (x << bits | x >> (64 - bits)) & _MASK_64


def flow_hash(key: bytes, client: bytes, vip: bytes, client_port: int, vip_port: int, protocol: int) -> int:
    """The hash of a flow: SipHash-2-4 over its addresses, ports in network order and protocol."""
    ports = client_port.to_bytes(2, "big") + vip_port.to_bytes(2, "big")
    return siphash(key, client + vip + ports + bytes([protocol, 0, 0, 0]))


def service_number(key: bytes, name: str) -> int:
    """The 32-bit number by which a service is known in the tables of sources and of affinities."""
    return siphash(key, name.encode()) & 0xFFFF_FFFF


def spread(number: int, hash_: int, groups: int) -> int:
    """The group, of a power of two, of a service's source; `hash_` is that of its address."""
    mixed = number * 0x9E37_79B9_7F4A_7C15 % (1 << 64)
    return (hash_ ^ mixed) >> 32 & (groups - 1)


def scale(x: int, n: int) -> int:
    """Map the 32-bit number `x` evenly onto 0 to `n - 1`, without a division."""
    return x * n >> 32


def maglev_permutation(key: bytes, name: bytes, size: int) -> tuple[int, int]:
    """(offset, skip) of the backend `name` in a table of `size` places.

    Raises ValueError for a size below 2.
    """
    if size < 2:
        raise ValueError(f"a Maglev table has 2 places or more, not {size}")
    h = siphash(key, name)
    return (h & 0xFFFF_FFFF) % size, (h >> 32) % (size - 1) + 1


def maglev_table(permutations: Sequence[tuple[int, int]], weights: Sequence[int], size: int) -> list[int]:
    """The lookup table: for each place the index of its backend, in the order of `permutations`.

    `size` is a prime above the number of backends, so that every skip visits every place; a backend of
    weight 0 gets no place. The result is empty where no backend has weight. Raises ValueError for a size
    below 2, unequal lengths, a negative weight, an offset or skip out of range, and where a skip does not
    reach a free place because the size is no prime.
    """
    if size < 2:
        raise ValueError(f"a Maglev table has 2 places or more, not {size}")
    if len(permutations) != len(weights):
        raise ValueError(f"{len(permutations)} permutations, but {len(weights)} weights")
    if any(weight < 0 for weight in weights):
        raise ValueError("a weight is negative")
    if any(not (0 <= offset < size and 1 <= skip < size) for offset, skip in permutations):
        raise ValueError(f"an offset or skip is out of range for {size} places")
    if not any(weights):
        return []

    heaviest = max(weights)
    table = [_EMPTY] * size
    place = [offset for offset, _ in permutations]
    turns = [0] * len(permutations)
    filled = 0
    for round_ in count(1):
        for i, (_, skip) in enumerate(permutations):
            if round_ * weights[i] // heaviest <= turns[i]:
                continue
            where = place[i] = _next_free(table, place[i], skip)
            table[where] = i
            turns[i] += 1
            filled += 1
            if filled == size:
                return table
    raise AssertionError("unreachable")


def maglev_lookup(
    permutations: Sequence[tuple[int, int]], weights: Sequence[int], slots: Sequence[int], size: int
) -> bytes:
    """The same with the slot of each place's backend, as 16-bit numbers of this machine."""
    if len(permutations) != len(slots):
        raise ValueError(f"{len(permutations)} permutations, but {len(slots)} slots")
    return array("H", [slots[place] for place in maglev_table(permutations, weights, size)]).tobytes()


def _next_free(table: list[int], place: int, skip: int) -> int:
    for _ in table:
        if table[place] == _EMPTY:
            return place
        place = (place + skip) % len(table)
    raise ValueError(f"a skip of {skip} does not visit all of {len(table)} places")
