"""A configuration that decides packets without a host: no rules, no queues, no routes.

The table and the core are those of a daemon with one worker. What only a host knows is left open: every
backend can be reached, directly and by packets of any size. Health is not known either, so every backend is
up.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from l4lb.control.expand import Surroundings, expand
from l4lb.control.pool import AddressPool, Path
from l4lb.control.roster import Roster
from l4lb.control.slots import SlotRegistry
from l4lb.dataplane.balancer import Balancer
from l4lb.dataplane.decision import Reason, SlotCounters, Verdict
from l4lb.model import Address, Datapath, L4Config

MAX_PACKET = 40 + 65535
_EXPIRE_EVERY_MS = 5000
"""As often as a daemon has looked through all of its flows."""
_FIRST_MS = 10_000
_LONGEST_MS = 1 << 40
_SOURCES: dict[int, Address] = {4: IPv4Address("192.0.2.1"), 6: IPv6Address("2001:db8::1")}
"""This host towards its backends, by IP version; from the networks for documentation (RFC 5737, RFC 3849)."""
_TO_SERVICE = frozenset(
    reason for reason in Reason if reason.verdict is Verdict.FORWARD and not reason.name.startswith("REPLY")
)
_BEGINS = _TO_SERVICE - {Reason.FLOW}


class Choice(NamedTuple):
    """What became of one packet. `service` and `backend` are None where it went to none."""

    reason: Reason
    service: str | None
    backend: str | None

    @property
    def begins(self) -> bool:
        """Whether a backend was chosen for it: it is the first of a flow, or its flow is not remembered."""
        return self.reason in _BEGINS


class Rehearsal:
    """One configuration with its flows. `key` is the 16-byte hash key unless the configuration has one."""

    def __init__(self, config: L4Config, key: bytes) -> None:
        roster = Roster(config)
        roster.settle(0.0)
        self.config = config = roster.effective_config()
        """With the weights that decide while every backend is up: those of backups are 0."""
        self.slots = SlotRegistry()
        key = config.hash_key or key
        self.slots.assign(config, lambda slot: 0)
        paths = _paths(config)
        pool = AddressPool(config.masquerade.addresses)
        pool.assign(config, paths)
        around = Surroundings(
            key=key,
            seed=int.from_bytes(key[:4], "big") or 1,
            replies_seen=config.datapath in (Datapath.REWRITE, Datapath.REFERENCE),
            paths=paths,
            pool=pool,
        )
        ports = config.masquerade
        self.balancer = Balancer(
            capacity=config.flows.capacity,
            key=key,
            ports=(ports.first_port, ports.last_port - ports.first_port + 1),
        )
        self.table = expand(config, self.slots, around)
        self.balancer.publish(self.table)
        self._now_ms = _FIRST_MS
        self._expired_ms = _FIRST_MS
        self._began_s: float | None = None

    def decide(self, packet: bytes, length: int, time_s: float) -> Choice:
        """Decides the next packet, seen at `time_s`; `length` is all of it where `packet` is only its
        beginning.

        Time does not go back: a packet that is older than one before it comes at the same moment.
        """
        self._advance(time_s)
        whole = packet.ljust(min(length, MAX_PACKET), b"\0")
        decision = self.balancer.decide(whole, self._now_ms, rewrite=False)
        if decision.reason not in _TO_SERVICE:
            return Choice(decision.reason, None, None)
        return Choice(decision.reason, *self.slots.owner(decision.slot))

    def reasons(self) -> dict[str, int]:
        """Packets by reason, in lower case; those that there were none of are left out."""
        return {reason.name.lower(): count for reason, count in self.balancer.reasons().items() if count}

    def counters(self, service: str, backend: str) -> SlotCounters:
        """What a backend was given."""
        return self.balancer.slot_counters(self.slots.slot(service, backend))

    def _advance(self, time_s: float) -> None:
        if self._began_s is None:
            self._began_s = time_s
        since_ms = min(max((time_s - self._began_s) * 1000, 0), _LONGEST_MS)
        self._now_ms = max(self._now_ms, _FIRST_MS + int(since_ms))
        if self._now_ms - self._expired_ms >= _EXPIRE_EVERY_MS:
            self.balancer.expire(self._now_ms)
            self._expired_ms = self._now_ms


def _paths(config: L4Config) -> Mapping[Address, Path]:
    """A way to every backend. An MTU of 0 is one that is not known, so nothing is too large."""
    return {
        backend.address: Path("none", _SOURCES[backend.address.version], None, 0)
        for service in config.services
        for backend in service.backends
    }
