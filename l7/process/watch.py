"""Has the backends checked, and says what is believed of them.

A name may stand for several addresses, and each is checked: the backend is up while one of them is, and
workers are given those. What is disabled is not asked; what drains is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from random import Random

from l4lb.control.health import Dampener, State
from l4lb.control.member import Admin
from l4lb.model import HealthCheck
from l4lb.net.checks.monitor import Monitor, Plan
from l4lb.net.checks.target import Outcome, Target
from l7.process.names import Names
from l7.process.roster import Endpoint, Key, Member, Roster

_Probe = tuple[str, str]
"""The monitor's key: the pool, and the backend with one of its addresses."""


class Watch:
    """The checks of everything in a roster. `on_change` is told of backends that went up or down, or whose
    addresses did."""

    def __init__(self, roster: Roster, names: Names, on_change: Callable[[Key], None]) -> None:
        self._roster = roster
        self._names = names
        self._on_change = on_change
        self._health = {pool.name: pool.health for pool in roster.config.pools}
        self._probes: dict[_Probe, tuple[Key, Endpoint]] = {}
        self._dampeners: dict[_Probe, Dampener] = {}
        self._monitor: Monitor | None = None

    def begin(self) -> None:
        """Begins to check; needs a running event loop."""
        self._monitor = Monitor(self._on_outcome, Random())
        self.follow()

    async def close(self) -> None:
        """Ends all checking."""
        if self._monitor is not None:
            await self._monitor.close()
            self._monitor = None

    def follow(self) -> None:
        """Takes up what the roster has now; what is known of what stays is kept."""
        if self._monitor is None:
            return
        plans: dict[_Probe, Plan] = {}
        self._probes.clear()
        known, self._dampeners = self._dampeners, {}
        for member, endpoint, settings in self._wanted():
            probe = member.pool, f"{member.backend.name} {endpoint[0]}"
            self._probes[probe] = member.key, endpoint
            address = ip_address(endpoint[0].partition("%")[0])
            plans[probe] = Plan(Target(address, settings.port or endpoint[1]), settings)
            before = State.UP if member.up else State.DOWN
            dampener = known.get(probe) or Dampener(settings.rise, settings.fall, before)
            dampener.configure(settings.rise, settings.fall)
            self._dampeners[probe] = dampener
        self._monitor.set_targets(plans)

    def endpoints(self, member: Member) -> list[Endpoint]:
        """The addresses of a backend without those that are down; all of them where all are."""
        every = list(self._names.endpoints(member))
        working = [
            endpoint
            for endpoint in every
            if (dampener := self._dampeners.get((member.pool, f"{member.backend.name} {endpoint[0]}")))
            is None
            or dampener.state is State.UP
        ]
        return working or every

    def _wanted(self) -> Iterator[tuple[Member, Endpoint, HealthCheck]]:
        for member in self._roster.members():
            health = self._health[member.pool]
            if health is None or member.admin is Admin.DISABLED:
                continue
            host = member.backend.address.host
            if isinstance(host, str) and health.host is None:
                health = replace(health, host=host)
            for endpoint in self._names.endpoints(member):
                yield member, endpoint, health

    def _on_outcome(self, probe: _Probe, outcome: Outcome) -> None:
        dampener = self._dampeners.get(probe)
        if dampener is None or self._monitor is None:
            return
        now_s = time.monotonic()
        change = dampener.observe(outcome.ok, outcome.why, now_s)
        self._monitor.hurry(probe, dampener.is_failing)
        key, _ = self._probes[probe]
        member = self._roster.find(key)
        if member is None:
            return
        if outcome.ok and outcome.weight is not None and outcome.weight != member.weight:
            member.weight = outcome.weight
            self._on_change(key)
        own = [self._dampeners[other] for other, (owner, _) in self._probes.items() if owner == key]
        is_up = any(one.state is State.UP for one in own)
        if self._roster.report(key, up=is_up, why=outcome.why, now_s=now_s) or change is not None:
            self._on_change(key)
