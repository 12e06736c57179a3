"""Keeps the fast path on the host: installs its table, follows links, neighbours and routes, removes it.

All of it runs in the event loop of one thread; the methods hand their work over and wait. What fails while it
runs is logged, and when the table cannot be made right it goes: packets then take the ordinary way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Coroutine, Iterable
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from l4lb.control.design import Design
from l4lb.control.elements import families
from l4lb.control.fastpath import COUNTED, FAMILY, FLOWS, FastPlan, describe_fast_path
from l4lb.control.ruleset import TABLE, Ruleset, render_again, render_change, render_install
from l4lb.errors import L4lbError
from l4lb.net import nft
from l4lb.net.fastrules import fast_rules
from l4lb.net.logs import log
from l4lb.net.neighbours import REFRESH_S, Change, Neighbours, Wanted, open_events

_WAIT_S = 60
_QUIET_S = 0.01
"""Events that come together are answered together."""
_FORGET_EVERY_S = 0.5
_RETRY_S = 1.0
_FAILURES = (L4lbError, NetlinkError, OSError)


class FastPath:
    """`start`, then `update` with every new design, then `stop`.

    `learned_size` bounds the flows of each kind and family that are remembered.
    """

    def __init__(self, learned_size: int) -> None:
        self._learned_size = learned_size
        self._design: Design | None = None
        self._keeper = _Keeper()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fast-path", daemon=True)

    def start(self, design: Design, *, keep: bool = False) -> None:
        """Installs the table in place of what a former run may have left.

        With `keep`, for a design that took over that run's numbers, learned flows and counters stay.
        L4lbError where the kernel does not take it.
        """
        self._thread.start()
        try:
            self._run(self._keeper.begin(self._plan(design), design.neighbours, keep))
        except (NetlinkError, OSError) as error:
            raise L4lbError(f"the fast path: the host's links cannot be read: {error}") from error
        self._design = design

    def update(self, design: Design) -> None:
        """Makes the table right for another design. What fails is logged."""
        assert self._design is not None
        if design.neighbours != self._design.neighbours:
            self._run(self._keeper.want(design.neighbours))
        if design.rules is not self._design.rules:  # made from the same as ours
            self._run(self._keeper.renew(self._plan(design)))
        self._design = design

    def forget(self) -> None:
        """Forgets every flow. What the table `inet l4lb` has learned is to be forgotten before."""
        self._run(self._keeper.forget())

    def stop(self) -> None:
        """Ends the thread and removes the table. Safe after a `start` that failed, and more than once."""
        if self._thread.is_alive():
            self._run(self._keeper.end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_WAIT_S)
            self._loop.close()
        remove_fast_path()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_S)

    def _plan(self, design: Design) -> FastPlan:
        return FastPlan(design.table, design.config.services, self._learned_size)


def remove_fast_path() -> bool:
    """Removes the table, whoever left it; false where there was none."""
    return nft.delete_table(TABLE, FAMILY)


class _Keeper:
    """What runs in the thread."""

    def __init__(self) -> None:
        self._neighbours = Neighbours(time.monotonic)
        self._plan: FastPlan | None = None
        self._rules: Ruleset | None = None
        """What is installed; None where nothing is."""
        self._changes = Change.NONE
        self._wake = asyncio.Event()
        self._refresh_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._told = ""

    async def begin(self, plan: FastPlan, wanted: Wanted, keep: bool) -> None:
        self._plan = plan
        self._neighbours.want(wanted)
        loop = asyncio.get_running_loop()
        seen: asyncio.Future[None] = loop.create_future()
        self._tasks = [loop.create_task(self._follow(seen))]
        await seen
        rules = describe_fast_path(plan, self._neighbours.devices)
        if keep:
            self._put(rules)
            self._forget()  # what has changed meanwhile is not known
        else:
            _install(render_install(rules), families(plan.table))
            self._rules = rules
        self._tell()
        self._tasks.append(loop.create_task(self._keep()))

    async def want(self, wanted: Wanted) -> None:
        self._neighbours.want(wanted)
        self._refresh_at = 0.0
        self._wake.set()

    async def renew(self, plan: FastPlan) -> None:
        self._plan = plan
        self._apply()
        # What leads to a backend that is gone would keep its place, for a known flow is not learned anew.
        self._try_to_forget()

    async def forget(self) -> None:
        self._forget()

    def _forget(self) -> None:
        if self._rules is not None:
            flows = [name for name in FLOWS if name in self._rules.sets]
            nft.run_nft("".join(f"flush map {FAMILY} {TABLE} {name}\n" for name in flows))

    async def end(self) -> None:
        left = set(self._tasks)
        while left:
            # More than once: `wait_for` forgets that it was cancelled if what it waits for happens just then
            # (CPython issue 86296), as the addresses do that are removed at the end.
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=_QUIET_S)

    async def _follow(self, seen: asyncio.Future[None]) -> None:
        """Takes events in. When some were lost, all is read again. `seen` has a result when all is read for
        the first time, or the error."""
        while True:
            try:
                async with open_events() as events:
                    await self._neighbours.read()
                    if seen.done():
                        self._changed(Change.DEVICES | Change.WAYS)
                    else:
                        seen.set_result(None)
                    async for message in events:
                        self._changed(self._neighbours.on_event(message))
            except _FAILURES as error:
                if not seen.done():
                    seen.set_exception(error)
                    return
                _warn("the host's links cannot be followed", error)
            await asyncio.sleep(_RETRY_S)

    def _changed(self, change: Change) -> None:
        if change:
            self._changes |= change
            self._wake.set()

    async def _keep(self) -> None:
        """Carries changes out, and keeps backends' addresses resolved meanwhile."""
        while True:
            now = time.monotonic()
            if now >= self._refresh_at:
                self._refresh_at = now + REFRESH_S
                try:
                    await self._neighbours.refresh()
                except _FAILURES as error:
                    _warn("backends' addresses cannot be resolved", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._refresh_at - time.monotonic())
            self._wake.clear()
            if self._changes:
                await asyncio.sleep(_QUIET_S)
                await self._carry_out()

    async def _carry_out(self) -> None:
        changes, self._changes = self._changes, Change.NONE
        if Change.DEVICES in changes:
            self._apply()
        if Change.WAYS in changes:
            self._try_to_forget()
            # Where routes change all the time, flows are learned in between.
            await asyncio.sleep(_FORGET_EVERY_S)

    def _try_to_forget(self) -> None:
        try:
            self._forget()
        except L4lbError as error:
            _warn("flows cannot be forgotten", error)

    def _apply(self) -> None:
        """Makes the table right for the plan and for what is seen now."""
        assert self._plan is not None
        rules = describe_fast_path(self._plan, self._neighbours.devices)
        if rules == self._rules:
            return
        try:
            self._put(rules)
            self._tell()
        except _FAILURES as error:
            _warn("off, packets take the ordinary way", error)
            self._rules = None
            with contextlib.suppress(L4lbError):
                remove_fast_path()

    def _put(self, rules: Ruleset) -> None:
        assert self._plan is not None
        # A family that comes or goes has rules that are filled in elsewhere.
        if self._rules is not None and self._rules.filled_elsewhere == rules.filled_elsewhere:
            with contextlib.suppress(L4lbError):  # a device took its chain along, or somebody else was there
                nft.run_nft(render_change(self._rules, rules))
                self._rules = rules
                return
        present = families(self._plan.table)
        try:
            _install(render_again(rules, kept={*COUNTED, *FLOWS}), present)
        except L4lbError:
            _install(render_install(rules), present)  # what is there is of another version
        self._rules = rules

    def _tell(self) -> None:
        devices = ",".join(d.name for d in self._neighbours.devices if d.is_a_way) or "none"
        if devices != self._told:
            log("fast path", devices=devices)
            self._told = devices


def _warn(what: str, why: Exception) -> None:
    log(f"fast path: {what}", level=logging.WARNING, why=why)


def _install(script: str, present: Iterable[int]) -> None:
    nft.run_nft(script)
    nft.add_rules(FAMILY, TABLE, list(fast_rules(present)), "the fast path")
