"""Which of several backends is chosen: sequences where the rule is exact, shares where it is not."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4lb.control.endpoint import parse_endpoint
from l7.balancing.schedulers import make_scheduler
from l7.balancing.server import Server
from l7.model import Backend, BackendAddress, HashBy, Scheduler
from tests.unit.l7.asked import Asked, From

KEY = bytes(range(16))


def server(name: str, weight: int = 1) -> Server:
    host, port = parse_endpoint(f"{name}:80")
    assert port
    return Server(Backend(BackendAddress(host, port), weight), None)


def servers(*weights: int) -> list[Server]:
    return [server(f"10.0.0.{i + 1}", weight) for i, weight in enumerate(weights)]


def last_digits(kind: Scheduler, weights: list[int], count: int) -> str:
    among = servers(*weights)
    choose = make_scheduler(kind, None, KEY, Random(1))
    return "".join(choose(among, Asked(), From()).name[7] for _ in range(count))


@pytest.mark.parametrize(
    ("kind", "weights", "sequence"),
    [
        (Scheduler.ROUND_ROBIN, [1, 1, 1], "123123"),
        (Scheduler.ROUND_ROBIN, [5, 1, 1], "123123"),
        # The sequence that nginx gives for 5, 1, 1.
        (Scheduler.WEIGHTED_ROUND_ROBIN, [5, 1, 1], "1121311" * 2),
        (Scheduler.WEIGHTED_ROUND_ROBIN, [1, 1], "1212"),
        (Scheduler.WEIGHTED_ROUND_ROBIN, [3, 1], "1121" * 2),
        # Nobody has anything to do: in turn.
        (Scheduler.LEAST_CONNECTIONS, [1, 1, 1], "123123"),
        (Scheduler.LEAST_TIME, [1, 1, 1], "123123"),
    ],
)
def test_sequences(kind, weights, sequence):
    assert last_digits(kind, weights, len(sequence)) == sequence


@pytest.mark.parametrize(
    ("kind", "weights", "active", "chosen"),
    [
        (Scheduler.LEAST_CONNECTIONS, [1, 1, 1], [2, 1, 3], 1),
        (Scheduler.LEAST_CONNECTIONS, [9, 1, 1], [2, 1, 3], 1),
        (Scheduler.WEIGHTED_LEAST_CONNECTIONS, [9, 1, 1], [8, 1, 3], 0),
        (Scheduler.WEIGHTED_LEAST_CONNECTIONS, [2, 1, 1], [2, 1, 0], 2),
    ],
)
def test_fewest(kind, weights, active, chosen):
    among = servers(*weights)
    for one, has in zip(among, active, strict=True):
        one.active = has
    assert make_scheduler(kind, None, KEY, Random(1))(among, Asked(), From()) is among[chosen]


def test_least_connections_is_what_a_busy_pool_evens_out_by():
    among = servers(1, 1, 1)
    choose = make_scheduler(Scheduler.LEAST_CONNECTIONS, None, KEY, Random(1))
    among[0].active = 5
    for _ in range(10):
        choose(among, Asked(), From()).active += 1
    assert sorted(one.active for one in among) == [5, 5, 5]


def test_least_time_prefers_who_answers_soon_and_has_little_to_do():
    among = servers(1, 1, 4)
    choose = make_scheduler(Scheduler.LEAST_TIME, None, KEY, Random(1))
    for one, took_s in zip(among, [0.010, 0.020, 0.050], strict=True):
        one.took(took_s)
    assert choose(among, Asked(), From()) is among[0]
    among[0].active = 1
    assert choose(among, Asked(), From()) is among[2]  # 50 ms / 4


def test_the_average_follows_what_is_measured():
    one = server("10.0.0.1")
    one.took(0.1)
    assert one.average_s == pytest.approx(0.1)
    for _ in range(40):
        one.took(0.5)
    assert one.average_s == pytest.approx(0.5, rel=0.01)


def test_power_of_two_takes_the_freer_and_heeds_weights():
    among = servers(1, 3)
    choose = make_scheduler(Scheduler.POWER_OF_TWO, None, KEY, Random(1))
    for _ in range(4000):
        choose(among, Asked(), From()).active += 1
    assert among[1].active / among[0].active == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 2, 3]])
def test_hash_shares_follow_weights(weights):
    among = servers(*weights)
    choose = make_scheduler(Scheduler.CONSISTENT_HASH, HashBy("uri"), KEY, Random(1))
    shares = Counter(choose(among, Asked(b"/%d" % i), From()).name for i in range(12_000))
    for one, weight in zip(among, weights, strict=True):
        assert shares[one.name] / 12_000 == pytest.approx(weight / sum(weights), abs=0.02)


@pytest.mark.parametrize(
    ("by", "first", "second"),
    [
        (HashBy("uri"), Asked(b"/a?x=1"), Asked(b"/a?x=1", {b"x-user": b"7"})),
        (HashBy("header", b"x-user"), Asked(b"/a", {b"x-user": b"7"}), Asked(b"/b", {b"x-user": b"7"})),
        (HashBy("cookie", b"id"), Asked(b"/a", {}, {b"id": b"7"}), Asked(b"/b", {}, {b"id": b"7"})),
    ],
)
def test_what_is_hashed_alike_meets_one_backend_whoever_asks(by, first, second):
    among = servers(*[1] * 50)
    choose = make_scheduler(Scheduler.CONSISTENT_HASH, by, KEY, Random(1))
    assert choose(among, first, From("192.0.2.1")) is choose(among, second, From("192.0.2.2"))


def test_without_the_header_clients_are_spread():
    among = servers(1, 1, 1, 1)
    choose = make_scheduler(Scheduler.CONSISTENT_HASH, HashBy("header", b"x-user"), KEY, Random(1))
    assert len({choose(among, Asked(), From(f"192.0.2.{i}")).name for i in range(100)}) == 4


def test_source_hash_goes_by_the_client_alone():
    among = servers(*[1] * 50)
    choose = make_scheduler(Scheduler.SOURCE_HASH, None, KEY, Random(1))
    found = {choose(among, Asked(b"/%d" % i), From("2001:db8::7")).name for i in range(100)}
    assert len(found) == 1


@given(gone=st.integers(0, 9))
def test_a_backend_that_goes_moves_its_own_keys_and_hardly_others(gone):
    among = servers(*[1] * 10)
    choose = make_scheduler(Scheduler.CONSISTENT_HASH, HashBy("uri"), KEY, Random(1))
    keys = [Asked(b"/%d" % i) for i in range(1000)]
    before = [choose(among, key, From()) for key in keys]
    left = [one for i, one in enumerate(among) if i != gone]
    after = [choose(left, key, From()) for key in keys]
    moved = sum(a is not b for a, b in zip(before, after, strict=True) if a is not among[gone])
    assert moved < 50
