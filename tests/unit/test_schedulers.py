"""Every scheduler over both cores: exact sequences where it counts, shares where it hashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from l4lb.dataplane.decision import Decision, Reason
from l4lb.dataplane.reference.hashing import flow_hash, scale, siphash
from l4lb.dataplane.table import Table
from l4lb.model import Scheduler
from tests.support.cores import KEY, Core, both_cores
from tests.support.packets import packed, tcp, udp
from tests.support.tables import Slots, Svc, make_table

VIP = "192.0.2.1"
A, B, C = "10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080"


class Driver:
    """One balancer that new connections are opened on. Slots are 0, 1, 2 in the order of the backends."""

    def __init__(self, core: Core, scheduler: Scheduler, *backends: str, shared: Any = None) -> None:
        self.slots = Slots()
        self.balancer = core.balancer.Balancer(capacity=4096, key=KEY, shared=shared)
        self.scheduler = scheduler
        self.publish(*backends)
        self.port = 1024

    def publish(self, *backends: str, name: str = "web") -> Table:
        table = make_table(Svc(name, [f"{VIP}:80/tcp"], backends, self.scheduler), slots=self.slots)
        self.balancer.publish(table)
        return table

    def open(self, client: str = "198.51.100.7") -> int:
        """A SYN from the client's next port; the slot that it got."""
        self.port += 1
        decision: Decision = self.balancer.decide(tcp(f"{client}:{self.port}", f"{VIP}:80"), 0)
        assert decision.reason is Reason.SCHEDULED
        return decision.slot

    def establish(self, client: str = "198.51.100.7") -> int:
        slot = self.open(client)
        self.balancer.decide(tcp(f"{client}:{self.port}", f"{VIP}:80", "A"), 0)
        return slot

    def letters(self, count: int, step: Callable[[], int] | None = None) -> str:
        return "".join("ABC"[(step or self.open)()] for _ in range(count))


@both_cores
def test_round_robin_takes_turns_and_does_not_look_at_weights(core: Core) -> None:
    assert Driver(core, Scheduler.ROUND_ROBIN, A, f"{B} x9", C).letters(7) == "ABCABCA"


@both_cores
def test_round_robin_leaves_out_weight_0(core: Core) -> None:
    assert Driver(core, Scheduler.ROUND_ROBIN, A, f"{B} x0", C).letters(5) == "ACACA"


@both_cores
def test_weighted_round_robin_is_smooth(core: Core) -> None:
    driver = Driver(core, Scheduler.WEIGHTED_ROUND_ROBIN, f"{A} x5", B, C)
    assert driver.letters(14) == "AABACAA" * 2


@both_cores
def test_weighted_round_robin_gives_equals_in_order(core: Core) -> None:
    assert Driver(core, Scheduler.WEIGHTED_ROUND_ROBIN, f"{A} x3", f"{B} x3").letters(5) == "ABABA"


@both_cores
def test_weighted_round_robin_leaves_out_weight_0(core: Core) -> None:
    assert Driver(core, Scheduler.WEIGHTED_ROUND_ROBIN, f"{A} x0", f"{B} x2", C).letters(6) == "BCBBCB"


@both_cores
def test_least_connections_takes_equals_in_turn(core: Core) -> None:
    assert Driver(core, Scheduler.LEAST_CONNECTIONS, A, B, C).letters(7) == "ABCABCA"


@both_cores
def test_least_connections_weighs_an_established_flow_as_256_others(core: Core) -> None:
    driver = Driver(core, Scheduler.LEAST_CONNECTIONS, A, B)
    assert driver.establish() == 0
    assert driver.letters(256) == "B" * 256
    assert driver.letters(4) == "ABAB"  # 256 to 256, and the cursor stands behind B


@both_cores
def test_least_connections_does_not_look_at_weights(core: Core) -> None:
    assert Driver(core, Scheduler.LEAST_CONNECTIONS, A, f"{B} x5").letters(4) == "ABAB"


@both_cores
def test_least_connections_counts_the_flows_of_every_worker(core: Core) -> None:
    shared = core.balancer.SharedCounters()
    one = Driver(core, Scheduler.LEAST_CONNECTIONS, A, B, shared=shared)
    two = Driver(core, Scheduler.LEAST_CONNECTIONS, A, B, shared=shared)
    assert one.establish() == 0
    assert two.letters(3) == "BBB"
    assert (shared.flows(0), shared.active(0)) == (1, 1)
    assert (shared.flows(1), shared.active(1)) == (3, 0)


@both_cores
def test_weighted_least_connections_divides_by_the_weight(core: Core) -> None:
    driver = Driver(core, Scheduler.WEIGHTED_LEAST_CONNECTIONS, A, f"{B} x3")
    # (load + 256) / weight: B's 256/3 rises to 1024/3 while A stays at 256, so B gets three of four.
    assert driver.letters(8, driver.establish) == "BBABBBAB"


@both_cores
def test_weighted_least_connections_takes_equals_in_turn(core: Core) -> None:
    assert Driver(core, Scheduler.WEIGHTED_LEAST_CONNECTIONS, f"{A} x2", f"{B} x2").letters(5) == "ABABA"


@both_cores
def test_power_of_two_takes_the_less_loaded_of_the_two_that_the_hash_names(core: Core) -> None:
    driver = Driver(core, Scheduler.POWER_OF_TWO, A, B, C)
    load = Counter[int]()
    for _ in range(50):
        hash_ = driver_hash(driver.port + 1)
        i = scale(hash_ >> 32, 3)
        j = scale(hash_ & 0xFFFFFFFF, 2)
        j += j >= i
        expected = j if load[j] < load[i] else i
        assert driver.establish() == expected
        load[expected] += 1
    assert max(load.values()) - min(load.values()) <= 3


@both_cores
def test_power_of_two_with_one_backend(core: Core) -> None:
    assert Driver(core, Scheduler.POWER_OF_TWO, f"{A} x0", B).letters(3) == "BBB"


@both_cores
def test_power_of_two_with_two_backends_is_weighted_least_connections_but_for_equals(core: Core) -> None:
    driver = Driver(core, Scheduler.POWER_OF_TWO, A, f"{B} x3")
    shares = Counter(driver.establish() for _ in range(400))
    assert shares[1] == pytest.approx(300, abs=1)


@both_cores
def test_source_hash_keeps_a_client_on_one_backend_whatever_its_port(core: Core) -> None:
    driver = Driver(core, Scheduler.SOURCE_HASH, A, B, C)
    for last in range(1, 30):
        client = f"198.51.100.{last}"
        slots = {driver.open(client) for _ in range(3)}
        assert slots == {looked_up(driver.publish(A, B, C), siphash(KEY, packed(client)))}


@both_cores
def test_source_hash_spreads_clients_by_weight(core: Core) -> None:
    driver = Driver(core, Scheduler.SOURCE_HASH, A, f"{B} x3")
    shares = Counter(driver.open(f"198.51.{high}.{low}") for high in range(8) for low in range(100))
    assert shares[1] == pytest.approx(600, rel=0.1)


@both_cores
def test_maglev_looks_the_flow_up(core: Core) -> None:
    driver = Driver(core, Scheduler.MAGLEV, A, B, C)
    table = driver.publish(A, B, C)
    expected = [looked_up(table, driver_hash(port)) for port in range(1025, 1125)]
    assert [driver.open() for _ in range(100)] == expected


@both_cores
def test_maglev_does_not_depend_on_the_order_of_the_configuration(core: Core) -> None:
    one = Driver(core, Scheduler.MAGLEV, A, B, C)
    other = Driver(core, Scheduler.MAGLEV, A, B, C)
    other.publish(C, A, B)
    assert one.letters(50) == other.letters(50)


@both_cores
def test_maglev_spreads_flows_by_weight(core: Core) -> None:
    driver = Driver(core, Scheduler.MAGLEV, A, f"{B} x3")
    shares = Counter(driver.open() for _ in range(800))
    assert shares[1] == pytest.approx(600, rel=0.1)


@both_cores
@pytest.mark.parametrize("scheduler", [Scheduler.FAILOVER, Scheduler.OVERFLOW])
def test_the_first_gets_all_until_it_is_full_or_gone(core: Core, scheduler: Scheduler) -> None:
    driver = Driver(core, scheduler, A, f"{B} x9", C)
    assert driver.letters(4, driver.establish) == "AAAA"
    driver.publish(f"{A} x0", B, C)
    assert driver.letters(2) == "BB"
    driver.publish(f"{A} max5", f"{B} max3", C)
    assert driver.letters(4) == "ABCC"
    driver.publish(A, B, C)
    assert driver.letters(2) == "AA"


@both_cores
@pytest.mark.parametrize("scheduler", Scheduler)
def test_udp_is_scheduled_as_tcp_is(core: Core, scheduler: Scheduler) -> None:
    listens = [f"{VIP}:53/udp", f"{VIP}:53/tcp"]
    table = make_table(Svc("dns", listens, ["10.2.0.11", "10.2.0.12"], scheduler))
    balancer = core.balancer.Balancer(capacity=1024, key=KEY)
    balancer.publish(table)
    decisions = [balancer.decide(udp(f"198.51.100.7:{port}", f"{VIP}:53"), 0) for port in range(1024, 1124)]
    assert {decision.reason for decision in decisions} == {Reason.SCHEDULED}
    slots = {decision.slot for decision in decisions}
    one = scheduler in (Scheduler.SOURCE_HASH, Scheduler.FAILOVER, Scheduler.OVERFLOW)
    assert slots == ({decisions[0].slot} if one else {0, 1})


@both_cores
@pytest.mark.parametrize("scheduler", Scheduler)
def test_tcp_without_syn_is_looked_up_and_takes_no_turn(core: Core, scheduler: Scheduler) -> None:
    """Whose SYN was not seen, or not remembered: the hash is what gateways and restarts have in common."""
    driver, undisturbed = (Driver(core, scheduler, A, f"{B} x3", C) for _ in range(2))
    table = driver.publish(A, f"{B} x3", C)
    for port, flags in enumerate(("A", "PA", "FA", "F", "") * 8, start=40_000):
        decision = driver.balancer.decide(tcp(f"198.51.100.7:{port}", f"{VIP}:80", flags), 0)
        assert decision.reason is Reason.SCHEDULED
        assert decision.slot == looked_up(table, driver_hash(port))
    assert driver.balancer.expire(60_000) == 40
    assert driver.letters(9) == undisturbed.letters(9)


# What a publish does to cursors.


@both_cores
def test_a_publish_that_changes_nothing_for_a_service_leaves_its_cursor(core: Core) -> None:
    for scheduler in (Scheduler.ROUND_ROBIN, Scheduler.WEIGHTED_ROUND_ROBIN, Scheduler.LEAST_CONNECTIONS):
        driver = Driver(core, scheduler, A, B, C)
        assert driver.letters(2) == "AB"
        driver.publish(A, B, C)
        assert driver.letters(2) == "CA", scheduler


@both_cores
def test_a_backend_without_weight_does_not_take_part_so_it_changes_nothing(core: Core) -> None:
    driver = Driver(core, Scheduler.ROUND_ROBIN, A, B)
    assert driver.letters(1) == "A"
    driver.publish(A, B, f"{C} x0")
    assert driver.letters(2) == "BA"


@both_cores
@pytest.mark.parametrize("backends", [(A, B), (A, B, f"{C} x2"), (A, C, B)], ids=["fewer", "weight", "order"])
def test_a_change_of_the_backends_begins_anew(core: Core, backends: tuple[str, ...]) -> None:
    driver = Driver(core, Scheduler.ROUND_ROBIN, A, B, C)
    assert driver.letters(2) == "AB"
    driver.publish(*backends)
    assert driver.letters(1) == "A"


@both_cores
def test_a_change_of_the_scheduler_begins_anew(core: Core) -> None:
    driver = Driver(core, Scheduler.ROUND_ROBIN, A, B)
    assert driver.letters(1) == "A"
    driver.scheduler = Scheduler.WEIGHTED_ROUND_ROBIN
    driver.publish(A, B)
    assert driver.letters(1) == "A"


@both_cores
def test_a_cursor_follows_its_service_by_name(core: Core) -> None:
    web = Svc("web", [f"{VIP}:80/tcp"], [A, B])
    other = Svc("other", [f"{VIP}:81/tcp"], [C, "10.2.0.14:8080"])
    slots = Slots()
    balancer = core.balancer.Balancer(capacity=64, key=KEY)
    balancer.publish(make_table(web, other, slots=slots))
    ports = iter(range(1024, 2048))

    def open_(port: int) -> int:
        slot: int = balancer.decide(tcp(f"198.51.100.7:{next(ports)}", f"{VIP}:{port}"), 0).slot
        return slot

    assert [open_(80), open_(81), open_(81), open_(81)] == [0, 2, 3, 2]
    balancer.publish(make_table(other, web, slots=slots))
    assert [open_(80), open_(81)] == [1, 3]


@both_cores
def test_a_service_that_went_and_came_back_begins_anew(core: Core) -> None:
    driver = Driver(core, Scheduler.ROUND_ROBIN, A, B)
    assert driver.letters(1) == "A"
    driver.publish(A, B, name="other")
    driver.publish(A, B)
    assert driver.letters(1) == "A"


@both_cores
@pytest.mark.parametrize("scheduler", [Scheduler.ROUND_ROBIN, Scheduler.WEIGHTED_ROUND_ROBIN])
def test_workers_take_turns_together(core: Core, scheduler: Scheduler) -> None:
    shared = core.balancer.SharedCounters()
    workers = [Driver(core, scheduler, A, B, C, shared=shared) for _ in range(2)]
    table = workers[0].publish(A, B, C)
    compiled = None
    letters = ""
    for _ in range(2):
        compiled = core.compile(table, compiled)
        for worker in workers:
            worker.balancer.publish(compiled)
        letters += "".join(worker.letters(1) for worker in workers * 2)
    assert letters == "ABCABCAB"


def driver_hash(port: int) -> int:
    return flow_hash(KEY, packed("198.51.100.7"), packed(VIP), port, 80, 6)


def looked_up(table: Table, hash_: int) -> int:
    lookup = memoryview(table.services[0].lookup).cast("H")
    return lookup[scale(hash_ >> 32, len(lookup))]
