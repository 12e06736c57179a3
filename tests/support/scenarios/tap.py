"""Counters of the demo's own on a host: what comes there, whatever the balancer says of it.

They stand in a table of their own and look first, where packets come in: before l4lb's rules, and before
routes are looked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.lab import Host

TABLE = "inet demo"
# Before l4lb, which forwards what it has learned from the same hook (500).
PRIORITY = -500


class Tap:
    """Counts packets that a host gets.

    `counters` are matches of nftables by name; a packet is counted by the first one that it matches.
    The source addresses of what matches `sources_of` are remembered.
    """

    def __init__(
        self, host: Host, counters: Mapping[str, Sequence[str]], sources_of: Sequence[str] = ()
    ) -> None:
        self._host = host
        lines = [f"table {TABLE} {{"]
        lines += [f"  counter {name} {{ }}" for name in counters]
        lines += [
            f"  set sources{family} {{ type ipv{family}_addr; flags dynamic; size 65536; }}"
            for family in (4, 6)
        ]
        devices = [link["ifname"] for link in json.loads(host.run(["ip", "-j", "link"]).stdout)]
        hook = f"ingress devices = {{ {', '.join(name for name in devices if name != 'lo')} }}"
        lines.append(f"  chain tap {{ type filter hook {hook} priority {PRIORITY};")
        for match in sources_of:
            lines.append(f"    meta nfproto ipv4 {match} add @sources4 {{ ip saddr }}")
            lines.append(f"    meta nfproto ipv6 {match} add @sources6 {{ ip6 saddr }}")
        for name, matches in counters.items():
            lines += [f"    {match} counter name {name} accept" for match in matches]
        lines += ["  }", "}"]
        host.run(["nft", "-f", "-"], input="\n".join(lines))

    def packets(self, name: str) -> int:
        """What a counter has counted."""
        (found,) = self._list("counter", name)
        return int(found["packets"])

    def sources(self, family: int) -> list[str]:
        """The addresses that were seen."""
        (found,) = self._list("set", f"sources{family}")
        return [str(_value(element)) for element in found.get("elem", [])]

    def _list(self, kind: str, name: str) -> list[dict[str, Any]]:
        shown = self._host.run(["nft", "-j", "list", kind, *TABLE.split(), name]).stdout
        return [entry[kind] for entry in json.loads(shown)["nftables"] if kind in entry]


def to_address(*addresses: str) -> list[str]:
    """Matches of packets to any of these."""
    return [f"{_header(address)} daddr {address}" for address in addresses]


def from_address(*addresses: str) -> list[str]:
    """Matches of packets from any of these."""
    return [f"{_header(address)} saddr {address}" for address in addresses]


def between(sources: Sequence[str], destinations: Sequence[str]) -> list[str]:
    """Matches of packets from one of the first to one of the second."""
    return [
        f"{_header(source)} saddr {source} {_header(source)} daddr {destination}"
        for source in sources
        for destination in destinations
        if _header(source) == _header(destination)
    ]


def _header(address: str) -> str:
    return "ip6" if ":" in address else "ip"


def _value(element: Any) -> Any:
    """An element alone; nftables puts those with attributes into an object."""
    return element["elem"]["val"] if isinstance(element, dict) else element
