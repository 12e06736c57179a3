"""Whatever the file holds, reading it ends in a configuration or in one line with a position."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from l4lb.control.config import parse_config
from l4lb.control.expand import expand
from l4lb.control.slots import SlotRegistry
from l4lb.dataplane.table import MAX_CANDIDATES
from l4lb.errors import ConfigError
from l4lb.model import L4Config

VALID = """\
l4:
  datapath: auto   # a comment
  workers: 2
  queue: {first: 0, length: 1024}
  flow_table:
    capacity: 4096
  hash_key: 00112233445566778899aabbccddeeff
  vip_interface: none
  services:
    - name: web
      listen: [203.0.113.10:80/tcp, 203.0.113.10:8000-8100/tcp+udp]
      forward: nat
      scheduler: power-of-two
      backends:
        - 10.2.0.11
        - {address: "10.2.0.12", weight: 3}
    - name: web6
      listen: "[2001:db8::1]:80/tcp"
      backends: ["[2001:db8::11]:8080"]
"""

_ERROR = re.compile(r"lb\.yaml:([1-9][0-9]*):([1-9][0-9]*): [^\n]+: [^\n]+")

# What YAML and this configuration give a meaning to, so that chance finds more than unknown keys.
_TOKENS = st.sampled_from(
    [
        *(
            "l4",
            "services",
            "name",
            "listen",
            "backends",
            "weight",
            "10.0.0.1:80/tcp",
            "[::1]:80",
            "-1",
            "any",
        ),
        *(
            ": ",
            ":",
            "- ",
            "\n",
            "\r",
            "  ",
            "\t",
            "[",
            "]",
            "{",
            "}",
            ",",
            "? ",
            "#",
            "'",
            '"',
            "|\n",
            ">\n",
        ),
        *("&a", "*a", "!x", "---\n", "...\n", "%YAML 1.1\n", "<<: ", "~", "null"),
        *("\0", "\x85", "\u2028", "\ufeff", "\ud800", "\U0001f600"),
    ]
)
_TEXTS = st.one_of(st.text(), st.lists(_TOKENS, max_size=40).map("".join))

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["10.0.0.1:80", "10.0.0.1", "203.0.113.10:any/udp", "[2001:db8::2]:80/tcp", "maglev", "auto", "web"]
    ),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["name", "listen", "backends", "address", "weight", "x"]), inner)
    ),
    max_leaves=8,
)


def read(text: str) -> L4Config | None:
    """What `text` says, or None after an error of the right form."""
    try:
        config = parse_config(text, "lb.yaml")
    except ConfigError as error:
        message = str(error)
        found = _ERROR.fullmatch(message)
        assert found and message.isprintable(), message
        lines = re.split(r"\r\n|\r|\n", text)
        line, column = int(found[1]), int(found[2])
        assert line <= len(lines), message
        assert column <= len(lines[line - 1]) + 1, message
        assert len(message) < 1000, message
        return None
    assert isinstance(config, L4Config)
    return config


@settings(deadline=None)
@given(_TEXTS)
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
@given(st.data())
def test_a_valid_file_with_pieces_cut_out_and_put_in(data: st.DataObject) -> None:
    text = VALID
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        piece = data.draw(st.one_of(_TOKENS, st.text(max_size=4), st.just("")))
        text = text[:start] + piece + text[end:]
    read(text)


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, child in children for place in _places(child, (*path, key)))]


@settings(deadline=None)
@given(st.data())
def test_a_valid_file_with_a_value_replaced(data: st.DataObject) -> None:
    tree = yaml.safe_load(VALID)
    *path, last = data.draw(st.sampled_from(_places(tree)[1:]))
    node = tree
    for key in path:
        node = node[key]
    node[last] = data.draw(_VALUES)
    read(yaml.safe_dump(tree, default_flow_style=data.draw(st.booleans())))


class _Filler:
    """Hashing is not what is tested: every backend gets one place."""

    def maglev_permutation(self, key: bytes, name: bytes, size: int) -> tuple[int, int]:
        return 0, 1

    def maglev_table(self, permutations: Any, weights: Any, size: int) -> list[int]:
        return list(range(len(weights)))


_PORTS = st.one_of(
    st.integers(1, 12).map(str),
    st.tuples(st.integers(1, 12), st.integers(0, 6)).map(lambda ab: f"{ab[0]}-{sum(ab)}"),
    st.just("any"),
)
_LISTENS = st.tuples(st.integers(1, 3), _PORTS, st.sampled_from(["tcp", "udp", "tcp+udp"])).map(
    lambda t: f"192.0.2.{t[0]}:{t[1]}/{t[2]}"
)
_BACKENDS = st.tuples(st.integers(1, 4), st.sampled_from(["", "", ":5", ":80"])).map(
    lambda t: f"10.0.0.{t[0]}{t[1]}"
)


@settings(deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "listen": st.lists(_LISTENS, min_size=1, max_size=3),
                "backends": st.lists(_BACKENDS, min_size=1, max_size=3),
            }
        ),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_accepted_expands_to_a_table_that_keeps_its_promises(services: list[dict[str, Any]]) -> None:
    for number, service in enumerate(services):
        service["name"] = f"s{number}"
    config = read(yaml.safe_dump({"l4": {"services": services}}))
    if config is None:
        return
    slots = SlotRegistry()
    slots.assign(config, lambda slot: 0)
    table = expand(config, slots, replies_seen=True, key=bytes(16), hashing=_Filler())

    for ranges in (*table.vips.values(), *table.endpoints.values()):
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

    # A packet to a service goes to a backend, and the backend's answer finds its way to the same listen.
    for number, service in enumerate(config.services):
        for listen in service.listens:
            vip, protocol = listen.address.packed, int(listen.protocol)
            for port in {listen.first_port, listen.last_port}:
                (owner,) = (r.service for r in table.vips[vip, protocol] if r.first <= port <= r.last)
                assert owner == number
                for backend in table.services[number].backends:
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
