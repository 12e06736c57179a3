"""Clients of services that share affinity, over both cores, while backends come, go, drain and are full."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from l4lb.dataplane.decision import Reason
from l4lb.dataplane.table import Table
from tests.support.packets import tcp
from tests.support.tables import Slots, Svc, make_table
from tests.support.twins import Twins

searching = settings(
    deadline=None,
    # The same examples in every run, unless the profile was chosen for searching, which then says how many.
    derandomize=settings.get_current_profile_name() != "fuzz",
)

SLOTS = Slots()
LASTS_MS = 1_000
HOSTS = ("10.2.0.11", "10.2.0.12", "10.2.0.13", "10.2.0.14")
PORTS = (8080, 8443, 8444)
VIPS = ("192.0.2.1:80", "192.0.2.1:443", "192.0.2.1:444")
CLIENTS = ("198.51.100.7", "198.51.100.8", "203.0.113.9")


Words = tuple[str, ...]


def table(backends: tuple[Words, ...], groups: tuple[str | None, ...] = ("shop",) * 3) -> Table:
    """A service for each of `VIPS`: its backends in their order, and its group."""
    return make_table(
        *(
            Svc(f"s{port}", [f"{vip}/tcp"], words, affinity=(32, LASTS_MS), group=group)
            for vip, port, words, group in zip(VIPS, PORTS, backends, groups, strict=True)
        ),
        slots=SLOTS,
    )


WHOLE = tuple(
    tuple(f"{host}:{port}" for host in HOSTS[n:] + HOSTS[:n]) for n, port in enumerate(PORTS)
)  # each in another order


@dataclass(frozen=True)
class Publish:
    backends: tuple[Words, ...]
    groups: tuple[str | None, ...] = ("shop",) * 3


@dataclass(frozen=True)
class Connect:
    """A new connection, and milliseconds that go by behind it."""

    client: str
    service: int
    wait_ms: int


@st.composite
def partial(draw: st.DrawFn) -> Publish:
    """Backends that drain, are full, apologise, are missing, or are there twice; services that leave."""
    words = st.sampled_from(["", "", " x0", " max1", " sorry", " x0 sorry", None])
    found = []
    for port, service in zip(PORTS, WHOLE, strict=True):
        chosen = [f"{end}{word}" for end in service if (word := draw(words)) is not None]
        if draw(st.integers(0, 3)) == 3:
            chosen.append(f"{draw(st.sampled_from(HOSTS))}:{port + 1000}")
        found.append(tuple(draw(st.permutations(chosen))))
    groups = st.sampled_from(["shop", "shop", "shop", "shop", "other", None])
    return Publish(tuple(found), tuple(draw(groups) for _ in found))


connections = st.builds(
    Connect, st.sampled_from(CLIENTS), st.integers(0, len(VIPS) - 1), st.sampled_from([0, 1, 999])
)


@searching
@given(
    steps=st.lists(
        st.one_of(connections, connections, connections, connections, st.just(Publish(WHOLE)), partial()),
        max_size=60,
    )
)
def test_the_cores_share_alike(steps: list[Connect | Publish]) -> None:
    twins = Twins(table(WHOLE), capacity=64)
    for number, step in enumerate(steps):
        if isinstance(step, Publish):
            twins.publish(table(step.backends, step.groups))
            continue
        packet = tcp(f"{step.client}:{1_000 + number}", VIPS[step.service])
        twins.ask(packet)
        twins.decide(packet)
        twins.now_ms += step.wait_ms
    twins.compare()


@searching
@given(asked=st.lists(connections, min_size=1, max_size=60))
def test_with_all_backends_a_client_meets_one_host(asked: list[Connect]) -> None:
    """Until it stays away for the time that affinity lasts; and each service sends it to its own port."""
    published = table(WHOLE)
    entries = [{b.slot: b for b in service.backends} for service in published.services]
    twins = Twins(published, capacity=64)
    last: dict[str, tuple[bytes, int]] = {}
    for number, one in enumerate(asked):
        decision = twins.decide(tcp(f"{one.client}:{1_000 + number}", VIPS[one.service]))
        host, ends_ms = last.get(one.client, (b"", 0))
        entry = entries[one.service][decision.slot]
        if twins.now_ms < ends_ms:
            assert (decision.reason, entry.address) == (Reason.AFFINITY, host)
        else:
            assert decision.reason is Reason.SCHEDULED
        last[one.client] = entry.address, twins.now_ms + LASTS_MS
        twins.now_ms += one.wait_ms
