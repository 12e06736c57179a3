"""SipHash, the flow hash and Maglev over both cores, against published and pinned values."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter

import pytest

from tests.support.cores import KEY, Core, both_cores

SIZE = 65537
NAMES = [f"10.2.0.{last}:8080".encode() for last in range(11, 21)]

# https://github.com/veorq/SipHash/blob/master/vectors.h: key 00..0f, input 00, 01, ... of this length.
SIPHASH_VECTORS = [
    0x726FDB47DD0E0E31,
    0x74F839C593DC67FD,
    0x0D6C8009D9A94F5A,
    0x85676696D7FB7E2D,
    0xCF2794E0277187B7,
    0x18765564CD99A68D,
    0xCBC9466E58FEE3CE,
    0xAB0200F58B01D137,
    0x93F5F5799A932462,
    0x9E0082DF0BA9E4B0,
    0x7A5DBBC594DDB9F3,
    0xF4B32F46226BADA7,
    0x751E8FBC860EE5FB,
    0x14EA5627C0843D90,
    0xF723CA908E7AF2EE,
    0xA129CA6149BE45E5,  # the example of the paper's appendix A
]


@both_cores
@pytest.mark.parametrize(("length", "expected"), list(enumerate(SIPHASH_VECTORS)))
def test_siphash_gives_the_official_vectors(core: Core, length: int, expected: int) -> None:
    assert core.hashing.siphash(KEY, bytes(range(length))) == expected


@both_cores
@pytest.mark.parametrize("length", [0, 15, 17, 32])
def test_siphash_refuses_a_key_of_another_length(core: Core, length: int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        core.hashing.siphash(bytes(length), b"")


@both_cores
def test_the_flow_hash_is_over_addresses_ports_and_protocol_in_network_order(core: Core) -> None:
    client, vip = bytes([198, 51, 100, 7]), bytes([192, 0, 2, 1])
    message = client + vip + bytes.fromhex("9c40 0050 06 000000")
    assert core.hashing.flow_hash(KEY, client, vip, 40000, 80, 6) == core.hashing.siphash(KEY, message)
    assert core.hashing.flow_hash(KEY, client, vip, 40000, 80, 6) == 0x404B1247A2B4216F


@both_cores
def test_the_flow_hash_of_ipv6_is_over_whole_addresses(core: Core) -> None:
    client, vip = bytes(range(16)), bytes(range(16, 32))
    assert core.hashing.flow_hash(KEY, client, vip, 40000, 80, 17) == 0x328277DBA5F5A960


# The permutations of table 1 in the Maglev paper.
PAPER = [(3, 4), (0, 2), (3, 1)]


@both_cores
def test_the_table_of_the_maglev_paper(core: Core) -> None:
    assert core.hashing.maglev_table(PAPER, [1, 1, 1], 7) == [1, 0, 1, 0, 2, 2, 0]


@both_cores
def test_the_table_of_the_maglev_paper_after_one_backend_is_gone(core: Core) -> None:
    assert core.hashing.maglev_table(PAPER, [1, 0, 1], 7) == [0, 0, 0, 0, 2, 2, 2]
    assert core.hashing.maglev_table([PAPER[0], PAPER[2]], [1, 1], 7) == [0, 0, 0, 0, 1, 1, 1]


# Golden values: an upgrade that changed them would send established flows to other backends.


@both_cores
def test_the_permutations_stay_what_they_were(core: Core) -> None:
    permutations = [core.hashing.maglev_permutation(KEY, name, SIZE) for name in NAMES[:3]]
    assert permutations == [(36764, 20798), (58897, 65427), (8948, 52894)]


@both_cores
def test_the_table_stays_what_it_was(core: Core) -> None:
    table = build(core, [1] * 10)
    assert table[:16] == [3, 1, 6, 0, 6, 8, 0, 1, 9, 5, 3, 8, 7, 0, 1, 5]
    assert digest(table) == "227ee31d10de6833bfd4779c747a4715800b8abdd43059a0b8efccc3e2d329f3"


@both_cores
def test_the_weighted_table_stays_what_it_was(core: Core) -> None:
    table = build(core, [1, 2, 3, 0, 5, 1, 1, 1, 1, 10])
    assert digest(table) == "4b89ff46363c1fe5cbac01e5ae404ad8f882ed10072aa6b86e0a92608c823f00"


@both_cores
def test_equal_weights_get_equal_shares(core: Core) -> None:
    shares = Counter(build(core, [7] * 10)).values()
    assert max(shares) - min(shares) <= 1


@both_cores
def test_shares_are_as_the_weights(core: Core) -> None:
    weights = [1, 2, 3, 0, 5, 1, 1, 1, 1, 10]
    shares = Counter(build(core, weights))
    for index, weight in enumerate(weights):
        # Whole turns only: the last round may be cut short, and lighter backends wait for theirs.
        assert shares[index] == pytest.approx(SIZE * weight / sum(weights), abs=2)


@both_cores
def test_weights_with_a_common_factor_give_the_same_table(core: Core) -> None:
    assert build(core, [1, 2] * 5) == build(core, [100, 200] * 5)


@both_cores
def test_a_lost_backend_moves_few_places_of_the_others(core: Core) -> None:
    before = build(core, [1] * 10)
    after = build(core, [1, 1, 1, 0, 1, 1, 1, 1, 1, 1])
    moved = sum(a != b for a, b in zip(before, after, strict=True) if a != 3)
    assert 3 not in after
    assert moved / SIZE < 0.01


@both_cores
def test_no_weight_gives_no_table(core: Core) -> None:
    assert core.hashing.maglev_table([], [], 7) == []
    assert core.hashing.maglev_table(PAPER, [0, 0, 0], 7) == []


@both_cores
def test_one_backend_gets_every_place(core: Core) -> None:
    assert core.hashing.maglev_table([(3, 4)], [5], 7) == [0] * 7


@both_cores
@pytest.mark.parametrize(
    ("permutations", "weights", "size"),
    [
        pytest.param([(0, 1)], [1], 1, id="one place"),
        pytest.param([(0, 1)], [1], 0, id="no place"),
        pytest.param([(0, 1)], [1, 1], 7, id="more weights"),
        pytest.param([(0, 1), (0, 1)], [1], 7, id="fewer weights"),
        pytest.param([(0, 1)], [-1], 7, id="negative weight"),
        pytest.param([(7, 1)], [1], 7, id="offset too large"),
        pytest.param([(-1, 1)], [1], 7, id="offset negative"),
        pytest.param([(0, 0)], [1], 7, id="skip 0"),
        pytest.param([(0, 7)], [1], 7, id="skip too large"),
        pytest.param([(0, 2)], [1], 4, id="skip that does not visit every place"),
    ],
)
def test_the_table_refuses_what_makes_no_sense(
    core: Core, permutations: list[tuple[int, int]], weights: list[int], size: int
) -> None:
    with pytest.raises(ValueError, match=r"."):
        core.hashing.maglev_table(permutations, weights, size)


@both_cores
@pytest.mark.parametrize("size", [2, 3, 251, SIZE])
def test_a_permutation_is_in_range(core: Core, size: int) -> None:
    for name in NAMES:
        offset, skip = core.hashing.maglev_permutation(KEY, name, size)
        assert 0 <= offset < size
        assert 1 <= skip < size


def build(core: Core, weights: list[int]) -> list[int]:
    permutations = [core.hashing.maglev_permutation(KEY, name, SIZE) for name in NAMES]
    table: list[int] = core.hashing.maglev_table(permutations, weights, SIZE)
    return table


def digest(table: list[int]) -> str:
    return hashlib.sha256(struct.pack(f"<{len(table)}H", *table)).hexdigest()


@both_cores
@pytest.mark.parametrize("size", [1, 0, -7])
def test_a_permutation_needs_two_places(core: Core, size: int) -> None:
    with pytest.raises(ValueError, match=str(size)):
        core.hashing.maglev_permutation(KEY, b"10.2.0.11:80", size)


@both_cores
def test_a_lookup_has_the_slots_of_the_table(core: Core) -> None:
    size, names = 251, [b"a", b"b", b"c"]
    permutations = [core.hashing.maglev_permutation(KEY, name, size) for name in names]
    table = core.hashing.maglev_table(permutations, [3, 1, 2], size)
    lookup = core.hashing.maglev_lookup(permutations, [3, 1, 2], [7, 65535, 0], size)
    assert list(memoryview(lookup).cast("H")) == [(7, 65535, 0)[index] for index in table]
    assert core.hashing.maglev_lookup(permutations, [0, 0, 0], [1, 2, 3], size) == b""
    with pytest.raises(ValueError, match=r"3 permutations,? but 2 slots"):
        core.hashing.maglev_lookup(permutations, [1, 1, 1], [1, 2], size)
