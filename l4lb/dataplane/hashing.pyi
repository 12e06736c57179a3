"""Keyed hashing and Maglev; `l4lb.dataplane.reference.hashing` is the readable twin."""

from collections.abc import Sequence

def siphash(key: bytes, data: bytes) -> int:
    """SipHash-2-4 of `data` under the 16-byte `key`, as an unsigned 64-bit number."""

def flow_hash(key: bytes, client: bytes, vip: bytes, client_port: int, vip_port: int, protocol: int) -> int:
    """The hash of a flow (docs/design/decision.md, section 7)."""

def maglev_permutation(key: bytes, name: bytes, size: int) -> tuple[int, int]:
    """(offset, skip) of the backend `name` in a table of `size` places; ValueError for a size below 2."""

def maglev_table(permutations: Sequence[tuple[int, int]], weights: Sequence[int], size: int) -> list[int]:
    """The lookup table: for each place the index of its backend, in the order of `permutations`.

    `size` is a prime above the number of backends; a backend of weight 0 gets no place. The result is
    empty where no backend has weight. Raises ValueError for a size below 2, unequal lengths, a negative
    weight, an offset or skip out of range, a skip that shares a factor with the size.
    """

def maglev_lookup(
    permutations: Sequence[tuple[int, int]], weights: Sequence[int], slots: Sequence[int], size: int
) -> bytes:
    """The same with the slot of each place's backend, as 16-bit numbers of this machine."""
