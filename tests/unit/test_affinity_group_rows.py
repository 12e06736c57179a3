"""Affinity that services share (docs/design/decision.md, section 12, groups)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from l4lb.dataplane.affinity_group import affinity_groups
from l4lb.dataplane.decision import Reason
from l4lb.dataplane.table import Table
from l4lb.model import Forward
from tests.support.cores import Core, both_cores
from tests.support.packets import tcp, udp
from tests.support.rows import Row, both_ways, check, forwarded, rows, start
from tests.support.tables import Slots, Svc, make_table

CLIENT, NEIGHBOUR, OTHER = "198.51.100.7", "198.51.100.200", "203.0.113.7"
HTTP, HTTPS, ADMIN, SHOP = "192.0.2.1:80", "192.0.2.1:443", "192.0.2.1:81", "192.0.2.1:82"
A, B = "10.2.0.11:8080", "10.2.0.12:8080"
A_TLS, B_TLS, C_TLS = "10.2.0.11:8443", "10.2.0.12:8443", "10.2.0.13:8443"
A_TOO, SORRY, SORRY_TLS = "10.2.0.11:8081", "10.2.0.19:8080", "10.2.0.19:8443"
A_ADMIN, B_ADMIN, A_SHOP, B_SHOP = (f"10.2.0.1{n}:{port}" for port in (9080, 7080) for n in (1, 2))
SLOTS = Slots()
MINUTE = 60_000


def table(
    http: tuple[str, ...] = (A, B),
    https: tuple[str, ...] = (B_TLS, A_TLS),
    group: str | None = "shop",
    tls_group: str | None = "shop",
) -> Table:
    """Round robin over the same hosts, in the group `shop`, in one of its own, and in none under its name.

    Slots: A 0, B 1, B_TLS 2, A_TLS 3, A_ADMIN 4, B_ADMIN 5, A_SHOP 6, B_SHOP 7; then the rows' own.
    """
    kept: dict[str, Any] = {"affinity": (32, MINUTE)}
    return make_table(
        Svc("http", [f"{HTTP}/tcp"], http, group=group, **kept),
        Svc("https", [f"{HTTPS}/tcp", f"{HTTPS}/udp"], https, group=tls_group, **kept),
        Svc("admin", [f"{ADMIN}/tcp"], [A_ADMIN, B_ADMIN], group="other", **kept),
        Svc("shop", [f"{SHOP}/tcp"], [A_SHOP, B_SHOP], **kept),
        slots=SLOTS,
    )


TABLE = table()
C_ADDED = table(https=(B_TLS, A_TLS, C_TLS))  # slot 8
C_ALONE = table(https=(f"{B_TLS} x0", f"{A_TLS} x0", C_TLS))
TWICE = table(http=(A, B, A_TOO))  # slot 9
APOLOGY = (f"{SORRY} sorry", f"{SORRY_TLS} x0 sorry")  # slots 10 and 11
HTTP_IS_SORRY = table((f"{A} x0", f"{B} x0", APOLOGY[0]), (B_TLS, A_TLS, APOLOGY[1]))
A_DRAINED_TLS = table(https=(B_TLS, f"{A_TLS} x0"))
A_DRAINED = table(http=(f"{A} x0", B))
A_REMOVED, B_REMOVED = table(http=(B,)), table(http=(A,))
A_LIMITED_TLS = table(https=(B_TLS, f"{A_TLS} max1"))
APART, NO_GROUPS = table(tls_group="other"), table(group=None, tls_group=None)


def syn(n: int, vip: str = HTTP, host: str = CLIENT) -> bytes:
    """The `n`th connection of a client."""
    return tcp(f"{host}:{n}", vip)


def to(backend: str, n: int, host: str = CLIENT) -> bytes:
    return tcp(f"{host}:{n}", backend)


@both_cores
@both_ways
@rows(
    forwarded("another service meets the host", syn(2, HTTPS), Reason.AFFINITY, 3, to(A_TLS, 2), syn(1)),
    forwarded(
        "... with UDP, too",
        udp(f"{CLIENT}:2", HTTPS),
        Reason.AFFINITY,
        3,
        udp(f"{CLIENT}:2", A_TLS),
        syn(1),
    ),
    forwarded("... and the other way", syn(2), Reason.AFFINITY, 1, to(B, 2), syn(1, HTTPS)),
    forwarded("... and back", syn(3), Reason.AFFINITY, 0, to(A, 3), syn(1), syn(2, HTTPS)),
    forwarded(
        "it takes no turn", syn(3, HTTPS, OTHER), Reason.SCHEDULED, 2, to(B_TLS, 3, OTHER), syn(1), syn(2)
    ),
    forwarded(
        "a neighbour is another",
        syn(1, HTTPS, NEIGHBOUR),
        Reason.SCHEDULED,
        2,
        to(B_TLS, 1, NEIGHBOUR),
        syn(1),
    ),
    forwarded("another group shares nothing", syn(2, ADMIN), Reason.SCHEDULED, 4, to(A_ADMIN, 2), syn(1)),
    forwarded(
        "a service of the group's name shares nothing",
        syn(2, SHOP),
        Reason.SCHEDULED,
        6,
        to(A_SHOP, 2),
        syn(1, HTTPS),
    ),
    forwarded("... and takes no place of it", syn(3), Reason.AFFINITY, 0, to(A, 3), syn(1), syn(2, SHOP)),
    # Time
    forwarded(
        "each renews it for all",
        syn(3),
        Reason.AFFINITY,
        0,
        to(A, 3),
        syn(1),
        40_000,
        syn(2, HTTPS),
        40_000,
    ),
    forwarded("it ends for all", syn(2, HTTPS), Reason.SCHEDULED, 2, to(B_TLS, 2), syn(1), MINUTE),
    # Backends that one service cannot use
    forwarded(
        "one that drains in one is left",
        syn(2, HTTPS),
        Reason.SCHEDULED,
        2,
        to(B_TLS, 2),
        syn(1),
        A_DRAINED_TLS,
    ),
    forwarded(
        "... and the others follow",
        syn(3),
        Reason.AFFINITY,
        1,
        to(B, 3),
        syn(1),
        A_DRAINED_TLS,
        syn(2, HTTPS),
    ),
    forwarded(
        "... who lost it goes on elsewhere",
        syn(2, HTTPS),
        Reason.AFFINITY,
        3,
        to(A_TLS, 2),
        syn(1),
        A_DRAINED,
    ),
    forwarded(
        "a full one gives way",
        syn(2, HTTPS),
        Reason.SCHEDULED,
        2,
        to(B_TLS, 2),
        A_LIMITED_TLS,
        syn(1, HTTPS, OTHER),
        syn(1, HTTPS, NEIGHBOUR),
        syn(1),
    ),
    forwarded(
        "... and is kept for all",
        syn(3),
        Reason.AFFINITY,
        0,
        to(A, 3),
        A_LIMITED_TLS,
        syn(1, HTTPS, OTHER),
        syn(1, HTTPS, NEIGHBOUR),
        syn(1),
        syn(2, HTTPS),
    ),
    # Backends that one service has alone
    forwarded(
        "one that one has alone is not remembered",
        syn(3),
        Reason.AFFINITY,
        0,
        to(A, 3),
        syn(1),
        C_ALONE,
        syn(2, HTTPS),
    ),
    forwarded(
        "... not by it either",
        syn(2, HTTPS),
        Reason.SCHEDULED,
        8,
        to(C_TLS, 2),
        C_ALONE,
        syn(1, HTTPS),
    ),
    forwarded(
        "... the hosts of all are",
        syn(4, HTTPS),
        Reason.AFFINITY,
        3,
        to(A_TLS, 4),
        C_ADDED,
        syn(1, HTTPS, OTHER),
        syn(1, HTTPS),
        syn(2),
    ),
    forwarded(
        "one that another has lost is kept",
        syn(2, HTTPS),
        Reason.AFFINITY,
        2,
        to(B_TLS, 2),
        syn(1, HTTPS),
        B_REMOVED,
    ),
    forwarded(
        "... and its time renewed",
        syn(3, HTTPS),
        Reason.AFFINITY,
        2,
        to(B_TLS, 3),
        syn(1, HTTPS),
        B_REMOVED,
        40_000,
        syn(2, HTTPS),
        40_000,
    ),
    forwarded(
        "... and the other goes elsewhere",
        syn(2),
        Reason.SCHEDULED,
        0,
        to(A, 2),
        syn(1, HTTPS),
        B_REMOVED,
    ),
    forwarded(
        "... with all", syn(3, HTTPS), Reason.AFFINITY, 3, to(A_TLS, 3), syn(1, HTTPS), B_REMOVED, syn(2)
    ),
    forwarded(
        "one that is gone where it was remembered is forgotten",
        syn(2, HTTPS),
        Reason.SCHEDULED,
        2,
        to(B_TLS, 2),
        syn(1),
        A_REMOVED,
    ),
    forwarded(
        "the first at an address is the host's",
        syn(2),
        Reason.AFFINITY,
        0,
        to(A, 2),
        TWICE,
        syn(1, HTTPS, OTHER),
        syn(1, HTTPS),
    ),
    forwarded(
        "... another is remembered by nobody",
        syn(4),
        Reason.SCHEDULED,
        0,
        to(A, 4),
        TWICE,
        syn(1, HTTP, OTHER),
        syn(1, HTTP, NEIGHBOUR),
        syn(3),
    ),
    forwarded(
        "a sorry server is no host",
        syn(3, HTTPS),
        Reason.AFFINITY,
        3,
        to(A_TLS, 3),
        syn(1),
        HTTP_IS_SORRY,
        syn(2),
    ),
    forwarded("... nor for itself", syn(2), Reason.SCHEDULED, 10, to(SORRY, 2), HTTP_IS_SORRY, syn(1)),
    # Groups change
    forwarded("one leaves its group", syn(2, HTTPS), Reason.SCHEDULED, 2, to(B_TLS, 2), syn(1), APART),
    forwarded("... and its slots mean nothing", syn(2), Reason.SCHEDULED, 0, to(A, 2), syn(1, HTTPS), APART),
    forwarded("... and comes back", syn(2, HTTPS), Reason.AFFINITY, 3, to(A_TLS, 2), syn(1), APART, TABLE),
    forwarded("groups go", syn(2), Reason.SCHEDULED, 1, to(B, 2), syn(1), NO_GROUPS),
)
def test_where_services_of_a_group_send_a_client(core: Core, row: Row, rewrite: bool) -> None:
    check(core, row, TABLE, rewrite=rewrite)


@both_cores
@pytest.mark.parametrize("forward", [mode for mode in Forward if mode is not Forward.NAT])
def test_it_serves_every_way_of_forwarding(core: Core, forward: Forward) -> None:
    hosts = [f"10.2.0.{n}" for n in range(11, 19)]
    one = Svc("one", [f"{HTTP}/tcp"], hosts, forward=forward, affinity=(32, MINUTE), group="shop")
    two = replace(one, name="two", listens=[f"{HTTPS}/tcp"], backends=hosts[::-1], forward=Forward.NAT)
    balancer = start(core, make_table(one, two, pool=["10.2.0.1"]), ports=(20_000, 64), capacity=64)
    for client in range(1, 9):
        host = f"198.51.100.{client}"
        first, second = (balancer.decide(syn(1, vip, host), 0) for vip in (HTTP, HTTPS))
        assert (first.slot, second.reason, second.slot) == (client - 1, Reason.AFFINITY, 16 - client)


@both_cores
def test_preview_foresees_it_and_changes_nothing(core: Core) -> None:
    balancer = start(core, TABLE, syn(1))
    for now_ms in (0, MINUTE - 1):
        foreseen = [balancer.preview(syn(2, HTTPS), now_ms) for _ in range(2)]
        assert [(decision.reason, decision.slot) for decision in foreseen] == [(Reason.AFFINITY, 3)] * 2
    assert balancer.preview(syn(2, HTTPS), MINUTE).reason is Reason.SCHEDULED


def test_the_hosts_of_a_group_are_those_of_all_its_services() -> None:
    third = Svc("h3", ["192.0.2.9:443/udp"], [C_TLS, A_TLS], affinity=(32, MINUTE), group="shop")
    first = Svc("http", [f"{HTTP}/tcp"], [A, B, f"{C_TLS} sorry"], affinity=(32, MINUTE), group="shop")
    services = [*make_table(first, third).services, *make_table(Svc("x", [f"{SHOP}/tcp"], [A])).services]
    assert [(g.name, g.services, g.hosts) for g in affinity_groups(services)] == [("shop", (0, 1), ((0, 4),))]
