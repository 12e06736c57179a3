"""Calls the checks in time.

* Each target is checked every interval ±10 %, counted from start to start, so that checks that fell together
  drift apart; one that is in a hurry every third of it, but not under a second (or the interval, where that
  is shorter).
* New targets are asked for the first time within a second, or, where that would be more than 500 checks a
  second, spread over a longer time up to one interval. The second check of those that were asked within less
  than an interval comes early, by chance, which spreads the load over intervals from then on.
* A backend is never checked twice at once, and over all backends no more than `at_once` checks run; what is
  due beyond that waits its turn. A check that took longer than its interval is followed by the next at once.
* One timer serves all targets: what is due stands in a heap, and a check is a task only while it runs.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from l4lb.model import HealthCheck
from l4lb.net.checks import kinds
from l4lb.net.checks.kinds import Check
from l4lb.net.checks.target import Outcome, Target

Key = tuple[str, str]
"""The names of a service and of its backend."""

AT_ONCE = 256
_FIRST_WITHIN_S = 1.0
_FIRST_PER_S = 500
_JITTER = 0.1
_SECOND_FROM = 0.2
_HURRY = 3
_SHORTEST_HURRY_S = 1.0
_TICK_S = 0.01


@dataclass(frozen=True, slots=True)
class Plan:
    """Whom to ask, and how."""

    target: Target
    settings: HealthCheck


@dataclass(slots=True, eq=False)
class _Watch:
    """One target and when it is due. `entry` is the number of its place in the heap; None where it has none,
    because it waits its turn, or is being checked. `second_from` is the least part of an interval after which
    the second check comes."""

    key: Key
    plan: Plan
    hurry: bool = False
    checks: int = 0
    second_from: float = 1.0
    began_s: float = 0.0
    due_s: float = 0.0
    entry: int | None = None
    task: asyncio.Task[None] | None = None
    is_gone: bool = False


class Monitor:
    """Checks targets until `close`. All its methods are for the thread of the event loop.

    `on_outcome` is called with each result, in that thread, and never for a target that was taken away or
    changed since. `random` is where jitter is from, `check` what carries out a check.
    """

    def __init__(
        self,
        on_outcome: Callable[[Key, Outcome], None],
        random: Random,
        *,
        check: Check = kinds.check,
        at_once: int = AT_ONCE,
    ) -> None:
        self._on_outcome = on_outcome
        self._random = random
        self._check = check
        self._at_once = at_once
        self._watches: dict[Key, _Watch] = {}
        self._heap: list[tuple[float, int, _Watch]] = []
        self._numbers = itertools.count()
        self._turns: deque[_Watch] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> int:
        """Checks that run now."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Checks that are due and wait for another one's end; if this stays above 0, they are late."""
        return len(self._turns)

    def set_targets(self, plans: Mapping[Key, Plan]) -> None:
        """Checks these from now on, and no others.

        What stays as it was is not touched. A changed target's running check is dropped, and it is asked as
        if new; whether it is in a hurry stays.
        """
        added = []
        for key, watch in list(self._watches.items()):
            if plans.get(key) != watch.plan:
                self._drop(watch)
                if key in plans:
                    self._watches[key] = _Watch(key, plans[key], watch.hurry)
                    added.append(self._watches[key])
        for key, plan in plans.items():
            if key not in self._watches:
                self._watches[key] = _Watch(key, plan)
                added.append(self._watches[key])
        self._spread(added)

    def hurry(self, key: Key, hurry: bool) -> None:
        """Checks a target more often, or again as usual. A target that is not known is none of its
        business."""
        watch = self._watches.get(key)
        if watch is None or watch.hurry == hurry:
            return
        watch.hurry = hurry
        if hurry and watch.entry is not None and watch.checks:
            self._plan(watch, min(watch.due_s, watch.began_s + self._pause_s(watch)))

    async def close(self) -> None:
        """Ends all checking; returns when no check runs any more."""
        self.set_targets({})
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await asyncio.gather(*self._running, return_exceptions=True)

    def _spread(self, added: list[_Watch]) -> None:
        """Plans the first checks, evenly, and in any order, so that a service's backends are not asked
        together."""
        now_s = asyncio.get_running_loop().time() if added else 0.0
        self._random.shuffle(added)
        within_s = max(_FIRST_WITHIN_S, len(added) / _FIRST_PER_S)
        for place, watch in enumerate(added):
            interval_s = watch.plan.settings.interval_s
            span_s = min(interval_s, within_s)
            watch.second_from = max(_SECOND_FROM, span_s / interval_s)
            self._plan(watch, now_s + span_s * (place + self._random.random()) / len(added))

    def _drop(self, watch: _Watch) -> None:
        watch.is_gone = True
        watch.entry = None
        del self._watches[watch.key]
        if watch.task is not None:
            watch.task.cancel()

    def _pause_s(self, watch: _Watch) -> float:
        """Seconds from the start of its last check to the next."""
        pause_s = watch.plan.settings.interval_s
        if watch.hurry:
            pause_s = min(pause_s, max(pause_s / _HURRY, _SHORTEST_HURRY_S))
        elif watch.checks == 1:
            return pause_s * self._random.uniform(watch.second_from, 1)
        return pause_s * self._random.uniform(1 - _JITTER, 1 + _JITTER)

    def _plan(self, watch: _Watch, due_s: float) -> None:
        """Gives the watch a place in the heap instead of the one that it may have, which is stale then."""
        watch.due_s = due_s
        watch.entry = next(self._numbers)
        heapq.heappush(self._heap, (due_s, watch.entry, watch))
        self._arm()

    def _arm(self) -> None:
        """Sets the timer to when something is due next, and not more than a hundred times a second: what is
        due in the same tick is served by one waking."""
        if not self._heap:
            return
        due_s = self._heap[0][0]
        if self._timer is not None:
            if self._timer.when() <= due_s + _TICK_S:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(due_s + _TICK_S, self._wake)

    def _wake(self) -> None:
        self._timer = None
        now_s = asyncio.get_running_loop().time()
        while self._heap and self._heap[0][0] <= now_s:
            _, number, watch = heapq.heappop(self._heap)
            if watch.entry == number:
                watch.entry = None
                self._turns.append(watch)
        self._take_turns()
        self._arm()

    def _take_turns(self) -> None:
        while self._turns and len(self._running) < self._at_once:
            watch = self._turns.popleft()
            if not watch.is_gone:
                watch.task = asyncio.get_running_loop().create_task(self._run(watch))
                self._running.add(watch.task)
                watch.task.add_done_callback(self._ended)

    async def _run(self, watch: _Watch) -> None:
        loop = asyncio.get_running_loop()
        watch.began_s = loop.time()
        outcome = await self._check(watch.plan.target, watch.plan.settings)
        if watch.is_gone:
            return
        watch.task = None
        watch.checks += 1
        try:
            self._on_outcome(watch.key, outcome)
        finally:
            if not watch.is_gone:  # the callback may have taken it away
                self._plan(watch, max(loop.time(), watch.began_s + self._pause_s(watch)))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": "the result of a health check could not be used", "exception": error}
            task.get_loop().call_exception_handler(context)
        self._take_turns()
