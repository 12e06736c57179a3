"""Has the backends checked, and tells the keeper what is believed of them.

Active checks ask the backends. Passive checks look at how flows to them begin: a client that
repeats its SYN was not answered. Both have their say; a backend works when neither is against it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from random import Random

from l4lb.cli.keeper import Json, Keeper
from l4lb.control.check_way import asks_vip
from l4lb.control.health import Dampener, PassiveJudge, State
from l4lb.control.member import Key, Member
from l4lb.model import HealthCheck, PassiveCheck, Service
from l4lb.net.checks.monitor import Monitor, Plan
from l4lb.net.checks.target import Outcome, Target

_PASSIVE_EVERY_S = 0.25
TakeBeginnings = Callable[[], Mapping[Key, tuple[int, int]]]
"""By backend how many flows began since the last call, and how many failed to; only where there were any."""


class Watch:
    """The checks of everything in the keeper's roster.

    `take_beginnings` counts for the passive ones; `mark_of` is the mark that sends a packet to a backend as
    if it had come for the service's first VIP.
    """

    def __init__(
        self, keeper: Keeper, take_beginnings: TakeBeginnings, mark_of: Callable[[Key], int]
    ) -> None:
        self._keeper = keeper
        self._mark_of = mark_of
        self._take_beginnings = take_beginnings
        self._dampeners: dict[Key, Dampener] = {}
        self._judges: dict[Key, tuple[PassiveCheck, PassiveJudge]] = {}
        self._out: set[Key] = set()
        """Those that a passive check has taken out, and whose end of it has not been told."""
        self._monitor: Monitor | None = None

    async def run(self) -> None:
        """Checks until it is cancelled."""
        self.begin()
        try:
            while True:
                await asyncio.sleep(_PASSIVE_EVERY_S)
                self._look_at_flows()
        finally:
            await self.close()

    def begin(self) -> None:
        """Begins the active checks."""
        self._monitor = Monitor(self._on_outcome, Random())
        self._keeper.on_settled = self._follow_roster
        self._follow_roster()

    async def close(self) -> None:
        """Ends the active checks, those that run now too; `begin` goes on from what is known."""
        if self._monitor is not None:
            await self._monitor.close()
            self._monitor = None

    def dump(self) -> Json:
        """What it believes, for `restore`, as JSON has it."""
        return {
            "dampeners": [[*key, dampener.dump()] for key, dampener in self._dampeners.items()],
            "judges": [[*key, asdict(check), judge.dump()] for key, (check, judge) in self._judges.items()],
        }

    def restore(self, dumped: Json) -> None:
        """Goes on from what another one believed; before `begin`."""
        for service, backend, dampener in dumped["dampeners"]:
            self._dampeners[service, backend] = Dampener.load(dampener)
        for service, backend, settings, judge in dumped["judges"]:
            check = PassiveCheck(**settings)
            self._judges[service, backend] = check, PassiveJudge.load(check, judge)

    def _follow_roster(self) -> None:
        """Takes up what the roster has now; what is known of backends that stay is kept."""
        if self._monitor is None:
            return
        plans = {member.key: plan for member, plan in self._plans()}
        self._dampeners = {
            key: self._dampeners.get(key) or self._new_dampener(key, plan.settings)
            for key, plan in plans.items()
        }
        for key, plan in plans.items():
            self._dampeners[key].configure(plan.settings.rise, plan.settings.fall)
        self._judges = {
            member.key: self._judge_for(member.key, service.passive)
            for service, member in self._members()
            if service.passive is not None
        }
        # Also those that a program before took out.
        self._out = {member.key for member in self._keeper.roster.members() if member.out}
        self._monitor.set_targets(plans)

    def _new_dampener(self, key: Key, settings: HealthCheck) -> Dampener:
        # One that was disabled was not checked, and is still believed to be what it was.
        up = self._keeper.roster.member(*key).up
        return Dampener(settings.rise, settings.fall, State.UP if up else State.DOWN)

    def _judge_for(self, key: Key, check: PassiveCheck) -> tuple[PassiveCheck, PassiveJudge]:
        known = self._judges.get(key)
        return known if known is not None and known[0] == check else (check, PassiveJudge(check))

    def _members(self) -> Iterator[tuple[Service, Member]]:
        roster = self._keeper.roster
        for service in roster.config.services:
            for member in roster.of(service.name).values():
                if member.is_checked:
                    yield service, member

    def _plans(self) -> Iterator[tuple[Member, Plan]]:
        for service, member in self._members():
            if service.health is not None:
                port = service.health.port or member.backend.port or service.listens[0].first_port
                mark = self._mark_of(member.key) if asks_vip(service, member.backend) else None
                yield member, Plan(Target(member.backend.address, port, mark), service.health)

    def _on_outcome(self, key: Key, outcome: Outcome) -> None:
        dampener = self._dampeners.get(key)
        if dampener is None or self._monitor is None:
            return
        dampener.observe(outcome.ok, outcome.why, time.monotonic())
        self._monitor.hurry(key, dampener.is_failing)
        if outcome.weight is not None and outcome.ok:
            self._keeper.weigh(key, outcome.weight)
        self._tell(key, outcome.why)

    def _look_at_flows(self) -> None:
        """What this costs goes with what happened, not with how many backends there are."""
        now = time.monotonic()
        for key, (begun, failed) in self._take_beginnings().items():
            judged = self._judges.get(key)
            change = None if judged is None else judged[1].observe(begun, failed, now)
            if change is not None:
                self._out.add(key)
                self._tell(key, change.why)
        for key in [key for key in self._out if not self._is_out(key, now)]:
            self._out.remove(key)
            self._tell(key, "its time out is over")

    def _is_out(self, key: Key, now_s: float) -> bool:
        judged = self._judges.get(key)
        return judged is not None and judged[1].is_out(now_s)

    def _tell(self, key: Key, why: str) -> None:
        dampener = self._dampeners.get(key)
        self._keeper.report(
            key,
            up=dampener is None or dampener.state is State.UP,
            out=self._is_out(key, time.monotonic()),
            why=why,
        )
