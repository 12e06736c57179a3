"""Checks of backends in tunnels travel as the core's own packets do, byte for byte."""

from __future__ import annotations

from dataclasses import replace

import pytest

from l4lb.dataplane.check_tunnels import CheckTunnels
from l4lb.dataplane.table import Table, forward_mark
from l4lb.model import Forward
from tests.support.cores import KEY, Core, both_cores
from tests.support.packets import packed, tcp, udp
from tests.support.tables import Svc, make_table

HOSTS = {4: ("192.0.2.1", "10.2.0.1", "10.3.0.11"), 6: ("[2001:db8:1::1]", "[fd00::1]", "[fd00::11]")}
"""By family: VIP, the gateway's own address, and the backend's."""


def table_of(forward: Forward, family: int) -> Table:
    vip, own, backend = HOSTS[family]
    source = f"{own.strip('[]')}/{32 if family == 4 else 128}"
    sources = (source, source) if forward is Forward.GUE else None
    fields = {"sources": sources} if sources else {}
    service = Svc("web", [f"{vip}:80/tcp", f"{vip}:80/udp"], [backend.strip("[]")], forward=forward, **fields)
    table = make_table(service)
    (entry,) = table.services
    return replace(table, services=(replace(entry, vips=(packed(vip.strip("[]")),)),))


@both_cores
@pytest.mark.parametrize("family", HOSTS)
@pytest.mark.parametrize("forward", [Forward.IPIP, Forward.GUE])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (tcp, {}),
        (tcp, {"flags": "PA", "payload": b"GET / HTTP/1.1\r\n\r\n!"}),
        (udp, {"payload": b"hello"}),
        (udp, {"payload": b""}),
    ],
    ids=["syn", "data", "datagram", "empty"],
)
def test_a_packet_to_the_backend_is_sent_as_a_clients_to_the_vip(core: Core, make, words, forward, family):
    vip, own, backend = HOSTS[family]
    table = table_of(forward, family)
    hops = "ttl" if family == 4 else "hlim"
    balancer = core.balancer.Balancer(capacity=16, key=KEY)
    balancer.publish(table)
    for port in (40_000, 40_001, 51_234):
        # The core spends a hop, for it is a router; a check begins here.
        came = make(f"{own}:{port}", f"{vip}:80", **words, **{hops: 65})
        asked = make(f"{own}:{port}", f"{backend}:80", **words, **{hops: 64})
        carried = CheckTunnels(table, KEY).carry(asked, forward_mark(0))
        assert carried == balancer.decide(came, 0).packet


def test_a_udp_packet_without_a_checksum_stays_so():
    tunnels = CheckTunnels(table_of(Forward.IPIP, 4), KEY)
    carried = tunnels.carry(udp("10.2.0.1:40000", "10.3.0.11:80", b"x", checksum=0), forward_mark(0))
    assert carried is not None
    assert carried[20 + 20 + 6 :][:2] == b"\0\0"


def test_a_mark_of_nobody_is_sent_nowhere():
    tunnels = CheckTunnels(table_of(Forward.IPIP, 4), KEY)
    assert tunnels.carry(tcp("10.2.0.1:40000", "10.3.0.11:80"), forward_mark(7)) is None
