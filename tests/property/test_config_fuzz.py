"""Whatever the file holds, reading it ends in a configuration or in one line with a position."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from l4lb.control.advice import locate
from l4lb.control.config import parse_config, parse_placed
from l4lb.control.expand import Surroundings, expand
from l4lb.control.pool import AddressPool, Path
from l4lb.control.slots import SlotRegistry
from l4lb.dataplane.table import MAX_CANDIDATES, MAX_MARKED_VIPS, PortRange, ReplySegment, ServiceEntry, Table
from l4lb.errors import ConfigError
from l4lb.model import CheckType, Forward, L4Config, OnDown, OnFailure, Service
from tests.support.config_texts import (
    SOURCE,
    TEXTS,
    check_error,
    check_said,
    with_another_value,
    with_other_pieces,
)

VALID = """\
l4:
  datapath: auto   # a comment
  workers: 2
  queue: {first: 0, length: 1024}
  flow_table:
    capacity: 4096
    new_flows: 100
  masquerade: {addresses: [10.2.0.1, "2001:db8::2"], ports: 1024-2047}
  tunnel: {sources: [198.18.0.0/15, "100::/64"], port: 6080}
  hash_key: 00112233445566778899aabbccddeeff
  vip_interface: none
  metrics: 127.0.0.1:9100
  services:
    - name: web
      listen: [203.0.113.10:80/tcp, 203.0.113.10:8000-8100/tcp+udp]
      forward: nat
      scheduler: power-of-two
      on_failure: hash
      allow: [10.0.0.0/8, 192.0.2.7]
      deny: 10.1.0.0/16
      limits: {new_flows: 10, flows: 100}
      affinity: {by: client-ip, mask: 24, timeout: 300s, group: one}
      health:
        type: https
        interval: 5s
        timeout: 250ms
        rise: 2
        fall: 3
        port: 8443
        path: /health
        method: POST
        host: www.example.com
        headers: {X-Check: l4lb}
        verify: false
        expect: {status: [200, 301-302], body: "OK", match: "a(b|c)+"}
      passive: {failures: 5, inhibit: 10s, longest: 5m}
      on_down: reset
      slow_start: 1m
      panic_threshold: 50%
      drain_timeout: 1h
      backends:
        - 10.2.0.11
        - {address: "10.2.0.12", weight: 3}
        - {address: "10.2.0.13", backup: 2}
    - name: web6
      listen: "[2001:db8::1]:80/tcp"
      forward: masquerade
      affinity: client-ip
      health: {type: exec, command: [/bin/check, -v]}
      passive: true
      backends: ["[2001:db8::11]:8080"]
    - name: echo
      listen: 203.0.113.10:7/udp
      forward: gue
      on_failure: pass
      health: {type: udp, payload_hex: 00ff, expect: {body: pong}}
      backends: [10.2.0.11:7, "[2001:db8::11]"]
"""

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [
            *(
                "10.0.0.1:80",
                "10.0.0.1",
                "203.0.113.10:any/udp",
                "[2001:db8::2]:80/tcp",
                "maglev",
                "auto",
                "web",
            ),
            *(
                "203.0.113.0/24",
                "::/0",
                "10.0.0.1/8",
                "::ffff:10.0.0.0/104",
                "[2001:db8::1]",
                "1-255",
                "1-256",
            ),
            *("5s", "100ms", "2h", "50%", "0.5", "true", "(", "[[a]", "a{1", "/health", "\ud800", "\0"),
            *(member.value for kind in (Forward, OnFailure, OnDown, CheckType) for member in kind),
        ]
    ),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("name", "listen", "backends", "address", "weight", "x"),
                    *("new_flows", "flows", "addresses", "ports", "sources", "port"),
                    *("type", "interval", "payload", "command", "expect", "status", "match", "headers"),
                ]
            ),
            inner,
        )
    ),
    max_leaves=8,
)


def test_the_file_that_others_are_made_from_is_valid() -> None:
    assert read(VALID)


def read(text: str) -> L4Config | None:
    """What `text` says, or None after an error of the right form."""
    try:
        config = parse_config(text, SOURCE)
    except ConfigError as error:
        check_error(str(error), text)
        return None
    assert isinstance(config, L4Config)
    for where, advice in locate(parse_placed(text, SOURCE)):
        check_said(f"{where}: {advice}")
    return config


@settings(deadline=None)
@given(TEXTS)
@example("l4: [2001:db8::1]:80")
@example("\ufeff\ufeff")
@example("%TAG ! x\n---\n!<x> y")
@example("a: !<%F0%28> b")
@example("- " * 40)
@example('"\\ud800": 1')
@example('l4: {services: [{name: "\\0\\x1b\\u2028"}]}')
def test_arbitrary_text(text: str) -> None:
    read(text)


@settings(deadline=None)
@given(with_other_pieces(VALID))
def test_a_valid_file_with_pieces_cut_out_and_put_in(text: str) -> None:
    read(text)


@settings(deadline=None)
@given(with_another_value(VALID, _VALUES))
def test_a_valid_file_with_a_value_replaced(text: str) -> None:
    read(text)


class _Filler:
    """Hashing is not what is tested: every backend gets one place."""

    def maglev_permutation(self, key: bytes, name: bytes, size: int) -> tuple[int, int]:
        return 0, 1

    def maglev_lookup(self, permutations: Any, weights: Any, slots: Any, size: int) -> bytes:
        return array("H", slots).tobytes()


_PORTS = st.one_of(
    st.integers(1, 12).map(str),
    st.tuples(st.integers(1, 12), st.integers(0, 6)).map(lambda ab: f"{ab[0]}-{sum(ab)}"),
    st.just("any"),
)
_LISTENS = st.tuples(st.integers(1, 6), _PORTS, st.sampled_from(["tcp", "udp", "tcp+udp"])).map(
    lambda t: f"192.0.2.{t[0]}:{t[1]}/{t[2]}"
)
_POOLS = st.sampled_from([[], ["10.1.0.1"], ["10.1.0.2", "2001:db8:1::1", "10.1.0.1"], ["192.0.2.1"]])
_NETWORKS = st.sampled_from([["10.0.0.0/8"], ["0.0.0.0/0", "192.0.2.7"]])


@st.composite
def _services(draw: st.DrawFn) -> dict[str, Any]:
    """A service that is mostly right: what is wrong of itself would leave little to expand."""
    listens = draw(st.lists(_LISTENS, min_size=1, max_size=3, unique=True))
    forward = draw(st.sampled_from(Forward))
    forms = ["10.0.0.{}", "10.0.0.{}", "[2001:db8::{}]" if forward.is_tunnel else "10.0.0.{}"]
    has_port = not forward.answers_itself and not any("-" in one or "any" in one for one in listens)
    backends = draw(st.lists(st.tuples(st.sampled_from(forms), st.integers(1, 4)), min_size=1, unique=True))
    port = st.sampled_from(["", ":5", ":80"] if has_port else [""])
    rest = st.fixed_dictionaries(
        {},
        optional={
            "on_failure": st.sampled_from([OnFailure.DROP.value, OnFailure.PASS.value]),
            "allow": _NETWORKS,
            "deny": _NETWORKS,
            "limits": st.sampled_from([{}, {"flows": 3}, {"new_flows": 4, "flows": 5}]),
        },
    )
    return {
        "listen": listens,
        "forward": forward.value,
        "backends": [form.format(number) + draw(port) for form, number in backends],
        **draw(rest),
    }


def _expand(config: L4Config) -> Table:
    """The table, on a host that reaches every backend directly."""
    sources = {4: ip_address("10.9.9.9"), 6: ip_address("2001:db8:9::9")}
    paths = {
        backend.address: Path("eth0", sources[backend.address.version], None, 1500)
        for service in config.services
        for backend in service.backends
    }
    slots, pool = SlotRegistry(), AddressPool(config.masquerade.addresses)
    slots.assign(config, lambda slot: 0)
    pool.assign(config, paths)
    around = Surroundings(key=bytes(16), replies_seen=True, paths=paths, pool=pool)
    return expand(config, slots, around, hashing=_Filler())


@settings(deadline=None)
@given(st.lists(_services(), min_size=1, max_size=5), _POOLS)
def test_what_is_accepted_expands_to_a_table_that_keeps_its_promises(
    services: list[dict[str, Any]], pool: list[str]
) -> None:
    named = [{"name": f"s{number}", **service} for number, service in enumerate(services)]
    masquerade = {"masquerade": {"addresses": pool}} if pool else {}
    config = read(json.dumps({"l4": {**masquerade, "services": named}}))  # which is YAML, without aliases
    if config is None:
        return
    table = _expand(config)

    disjoint: list[Sequence[PortRange | ReplySegment]] = [*table.vips.values(), *table.endpoints.values()]
    for ranges in disjoint:
        assert all(r.first <= r.last for r in ranges)
        assert all(a.last < b.first for a, b in pairwise(ranges))
    frontends: dict[int, tuple[bytes, int, int]] = {}
    for (_, protocol), segments in table.endpoints.items():
        for segment in segments:
            assert 1 <= len(segment.frontends) <= MAX_CANDIDATES
            assert len({(f.index, f.slot) for f in segment.frontends}) == len(segment.frontends)
            for f in segment.frontends:
                assert frontends.setdefault(f.index, (f.address, protocol, f.port)) == (
                    f.address,
                    protocol,
                    f.port,
                )
    assert len(set(frontends.values())) == len(frontends)

    of_nat = {b.slot for s in table.services if s.forward is Forward.NAT for b in s.backends}
    assert {f.slot for segments in table.endpoints.values() for s in segments for f in s.frontends} <= of_nat

    for number, service in enumerate(config.services):
        entry = table.services[number]
        _check_entry(service, entry, table)
        for listen in service.listens:
            vip, protocol = listen.address.packed, int(listen.protocol)
            for port in {listen.first_port, listen.last_port}:
                (owner,) = (r.service for r in table.vips[vip, protocol] if r.first <= port <= r.last)
                assert owner == number
                if service.forward is Forward.NAT:
                    _check_answers(entry, table, (vip, protocol, port))


def _check_entry(service: Service, entry: ServiceEntry, table: Table) -> None:
    """The mode has what it needs, and nothing that belongs to another."""
    client_size = len(service.listens[0].address.packed)
    assert entry.forward is service.forward
    if entry.forward.is_tunnel:
        assert entry.vips == (service.listens[0].address.packed,)
    elif entry.forward is not Forward.DSR:
        assert entry.vips == ()
    if entry.forward is Forward.DSR:
        assert set(entry.vips) == {listen.address.packed for listen in service.listens}
        assert len(entry.vips) <= MAX_MARKED_VIPS
    for backend in entry.backends:
        assert backend.port == 0 or not entry.forward.answers_itself
        assert len(backend.address) == client_size or entry.forward.is_tunnel
        assert len(backend.source) == (len(backend.address) if entry.forward.is_tunnel else 0)
        first, count = backend.pool
        assert (count > 0) == (entry.forward is Forward.MASQUERADE)
        sources = table.pool[first : first + count]
        assert [len(source) for source in sources] == [client_size] * count
        assert not set(sources) & {vip for vip, _ in table.vips}


def _check_answers(entry: ServiceEntry, table: Table, listen: tuple[bytes, int, int]) -> None:
    """A packet to the service goes to a backend, whose answer finds its way to the same listen."""
    vip, protocol, port = listen
    for backend in entry.backends:
        (segment,) = (
            s
            for s in table.endpoints[backend.address, protocol]
            if s.first <= (backend.port or port) <= s.last
        )
        assert [
            f.address
            for f in segment.frontends
            if f.slot == backend.slot and f.address == vip and f.port in (0, port)
        ] == [vip]
