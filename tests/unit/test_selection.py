"""Selections of flows over both cores: filters, orders, pages."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import Any

import pytest

from l4lb.dataplane.decision import Flow, State
from l4lb.dataplane.selection import Order, Selection, merge
from l4lb.dataplane.table import MAX_SLOTS
from tests.support.cores import KEY, Core, both_cores
from tests.support.packets import packed, tcp, udp
from tests.support.tables import Svc, make_table

TABLE = make_table(
    Svc("web", ["192.0.2.1:80/tcp"], ["10.2.0.11:8080", "10.2.0.12:8080"]),
    Svc("six", ["[2001:db8:1::1]:53/udp"], ["[fd00::11]:5353"]),
    Svc("dns", ["192.0.2.1:53/udp"], ["10.2.0.21:53"]),
)
NOW = 50_000


@both_cores
class Test:
    def balancer(self, core: Core) -> Any:
        """Ten TCP flows, every second one established, and five of each UDP service; one packet more for each
        number. Their clients come in no order."""
        balancer = core.balancer.Balancer(capacity=256, key=KEY)
        balancer.publish(TABLE)
        for n in (7, 2, 9, 0, 5, 1, 8, 3, 6, 4):
            client = f"198.51.{n % 2}.{n}:{40000 - n}"
            balancer.decide(tcp(client, "192.0.2.1:80"), 100 * n)
            for _ in range(n if n % 2 else 0):
                balancer.decide(tcp(client, "192.0.2.1:80", "A"), 100 * n + 1_000)
            if n < 5:
                balancer.decide(udp(f"[2001:db8::{n}]:4000", "[2001:db8:1::1]:53"), 100 * n)
                for _ in range(5 - n):
                    balancer.decide(udp(f"198.51.100.{n}:4000", "192.0.2.1:53", b"x" * n), 2_000)
        return balancer

    def flows(self, core: Core, **wish: Any) -> list[Flow]:
        return list(self.balancer(core).select(Selection(NOW, limit=100, **wish)).flows)

    def test_all_by_client_ipv4_first(self, core: Core) -> None:
        clients = [(len(flow.client), flow.client, flow.client_port) for flow in self.flows(core)]
        assert len(clients) == 20
        assert clients == sorted(clients)

    def test_by_listen(self, core: Core) -> None:
        flows = self.flows(core, order=Order.LISTEN)
        assert [flow.vip_port for flow in flows] == [53] * 5 + [80] * 10 + [53] * 5
        assert flows[0].client == packed("198.51.100.0")

    def test_descending_is_the_other_way_round(self, core: Core) -> None:
        for order in Order:
            assert self.flows(core, order=order, descending=True) == self.flows(core, order=order)[::-1]

    @pytest.mark.parametrize(
        ("order", "key"),
        [
            (Order.STATE, lambda flow: flow.state),
            (Order.EXPIRES, lambda flow: flow.expires_ms),
            (Order.SEEN, lambda flow: flow.expires_ms - TABLE.timeouts.of(flow.state)),
            (Order.PACKETS, lambda flow: flow.packets),
            (Order.BYTES, lambda flow: flow.bytes),
        ],
    )
    def test_by_what_flows_have(self, core: Core, order: Order, key: Any) -> None:
        values = [key(flow) for flow in self.flows(core, order=order)]
        assert values == sorted(values)
        assert len(set(values)) > 1

    def test_by_rank(self, core: Core) -> None:
        ranks = array("I", bytes(4 * MAX_SLOTS))
        ranks[0], ranks[1], ranks[2], ranks[3] = 4_000_000_000, 7, 8, 0
        slots = [flow.slot for flow in self.flows(core, order=Order.RANK, ranks=ranks.tobytes())]
        assert slots == sorted(slots, key=lambda slot: ranks[slot])
        assert set(slots) == {0, 1, 2, 3}

    def test_filters(self, core: Core) -> None:
        wanted = bytearray(MAX_SLOTS)
        wanted[2] = 1
        assert {flow.slot for flow in self.flows(core, slots=bytes(wanted))} == {2}
        assert len(self.flows(core, state=State.ESTABLISHED)) == 5
        assert len(self.flows(core, state=State.UDP)) == 10
        for network, length, count in [
            ("198.51.1.0", 24, 5),
            ("198.51.1.77", 24, 5),
            ("198.51.0.0", 16, 15),
            ("198.51.100.3", 32, 1),
            ("0.0.0.0", 0, 15),
            ("::", 0, 5),
            ("2001:db8::2", 128, 1),
            ("2001:db8::2", 127, 2),
            ("::198.51.1.0", 96, 0),
        ]:
            found = self.flows(core, network=(packed(network), length))
            assert len(found) == count, (network, length)
        both = self.flows(core, network=(packed("198.51.1.0"), 24), state=State.SYN_RECV)
        assert both == []

    def test_expired_flows_are_none(self, core: Core) -> None:
        balancer = self.balancer(core)
        living = balancer.select(Selection(now_ms=60_400, limit=100))
        assert living.matched == len(living.flows) == 20 - 3  # SYN_RECV of 0, 200 and 400 ms
        assert balancer.flow_count() == 20

    def test_pages_of_every_size_are_the_whole(self, core: Core) -> None:
        balancer = self.balancer(core)
        for order in Order:
            for descending in (False, True):
                for limit in (1, 3, 20):
                    wish = Selection(NOW, limit, order, descending)
                    whole = balancer.select(replace(wish, limit=100)).flows
                    pages: list[Flow] = []
                    while page := balancer.select(wish):
                        assert page.matched == 20
                        if not page.flows:
                            break
                        pages += page.flows
                        wish = replace(wish, after=wish.place_of(page.flows[-1]))
                    assert pages == whole

    def test_a_page_goes_on_behind_a_flow_that_is_gone(self, core: Core) -> None:
        balancer = self.balancer(core)
        wish = Selection(NOW, limit=4)
        last = balancer.select(wish).flows[-1]
        rest = balancer.select(replace(wish, limit=100, after=wish.place_of(last))).flows
        balancer.remove_flows(last.slot, 0, balancer.groups)
        behind = balancer.select(replace(wish, limit=100, after=wish.place_of(last))).flows
        assert behind == [flow for flow in rest if flow.slot != last.slot]

    def test_a_limit_of_0_counts(self, core: Core) -> None:
        assert self.balancer(core).select(Selection(NOW, limit=0)) == ([], 20)
        state = Selection(NOW, limit=0, state=State.UDP)
        assert self.balancer(core).select(state).matched == 10

    def test_without_flows(self, core: Core) -> None:
        balancer = core.balancer.Balancer(capacity=16, key=KEY)
        assert balancer.select(Selection(NOW, limit=5)) == ([], 0)


@both_cores
def test_the_pages_of_workers_are_merged(core: Core) -> None:
    shared = core.balancer.SharedCounters()
    workers = [core.balancer.Balancer(capacity=64, key=KEY, shared=shared) for _ in range(3)]
    for worker in workers:
        worker.publish(TABLE)
    for n in range(30):
        workers[n % 3].decide(tcp(f"198.51.100.{n}:1000", "192.0.2.1:80"), 0)
    for descending in (False, True):
        wish = Selection(1_000, limit=7, descending=descending)
        found = merge(wish, [worker.select(wish) for worker in workers])
        hosts = range(29, 22, -1) if descending else range(7)
        assert [(number, flow.client[3]) for number, flow in found] == [(n % 3, n) for n in hosts]


def test_the_native_core_refuses_what_makes_no_sense() -> None:
    from l4lb.dataplane.balancer import Balancer

    balancer = Balancer(capacity=16, key=KEY)
    for wish in (
        {"slots": b"\1"},
        {"ranks": b"\1"},
        {"network": (bytes(4), 33)},
        {"network": (bytes(5), 1)},
        {"order": 99},
    ):
        with pytest.raises(ValueError, match=r"slot|prefix|address|Order"):
            balancer.select(Selection(NOW, limit=5, **wish))  # type: ignore[arg-type]
