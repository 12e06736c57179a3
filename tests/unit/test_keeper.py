"""What checks say while a change is at work, and what operators wish at the same time."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable

import pytest

from l4lb.cli.keeper import Keeper
from l4lb.control.config import parse_config
from l4lb.control.roster import State
from l4lb.errors import L4lbError
from l4lb.model import L4Config

A, B = "10.2.0.11:80", "10.2.0.12:80"
CONFIG = parse_config(
    f"""
l4:
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      slow_start: 10m
      health: {{type: tcp}}
      backends: ["{A}", "{B}"]
""",
    "test",
)


class Slow:
    """Carries a change out when it is told to, in the keeper's thread."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.fails = False
        self.weights: list[list[int]] = []

    def carry_out(self, config, ended, withdrawn) -> None:
        self.begun.set()
        assert self.go_on.wait(10)
        if self.fails:
            raise L4lbError("the kernel refuses")
        self.weights.append([backend.weight for backend in config.services[0].backends])


def during(wish: Callable[[Keeper], object], saying: Callable[[Keeper], None], slow: Slow) -> Keeper:
    """The keeper after `wish` was carried out, and `saying` was said while it was at work."""

    async def play() -> Keeper:
        keeper = Keeper(CONFIG, slow.carry_out)
        change = asyncio.ensure_future(wish(keeper))
        await asyncio.to_thread(slow.begun.wait, 10)
        saying(keeper)
        slow.go_on.set()
        if slow.fails:
            with pytest.raises(L4lbError, match="the kernel refuses"):
                await change
        else:
            await change
        return keeper

    return asyncio.run(play())


def drain_b(keeper: Keeper):
    return keeper.change("drain", {"service": "web", "backend": B})


def weigh_a(weight: int) -> Callable[[Keeper], object]:
    return lambda keeper: keeper.change("weight", {"service": "web", "backend": A, "weight": weight})


def weight_of(keeper: Keeper, backend: str) -> int | None:
    return keeper.roster.member("web", backend).weight


def test_a_weight_that_a_check_finds_meanwhile_is_kept():
    keeper = during(drain_b, lambda keeper: keeper.weigh(("web", A), 7), Slow())
    assert weight_of(keeper, A) == 7
    assert keeper.roster.member("web", B).state is State.DRAINING


def test_the_later_of_two_weights_is_kept():
    keeper = during(weigh_a(3), lambda keeper: None, Slow())
    assert weight_of(keeper, A) == 3
    keeper = during(weigh_a(3), lambda keeper: keeper.weigh(("web", A), 7), Slow())
    assert weight_of(keeper, A) == 7


def test_a_weight_that_is_the_one_before_the_wish_is_kept_too():
    def wish(keeper: Keeper):
        keeper.weigh(("web", A), 7)
        return weigh_a(3)(keeper)

    assert weight_of(during(wish, lambda keeper: keeper.weigh(("web", A), 7), Slow()), A) == 7


def test_a_backend_that_goes_and_comes_back_meanwhile_starts_slowly():
    def flap(keeper: Keeper) -> None:
        for up in (False, True):
            keeper.report(("web", A), up=up, out=False, why="flapping")

    keeper = during(drain_b, flap, Slow())
    assert keeper.roster.member("web", A).up_since is not None


def test_what_was_said_of_a_backend_that_was_removed_meanwhile_is_dropped():
    def say(keeper: Keeper) -> None:
        keeper.report(("web", B), up=False, out=False, why="no answer")
        keeper.weigh(("web", B), 7)

    def wish(keeper: Keeper):
        return keeper.change("remove", {"service": "web", "backend": B})

    assert list(during(wish, say, Slow()).roster.of("web")) == [A]


@pytest.mark.parametrize("fails", [True, False])
def test_a_report_is_kept_whether_the_change_succeeds_or_not(fails):
    slow = Slow()
    slow.fails = fails
    keeper = during(
        drain_b, lambda keeper: keeper.report(("web", A), up=False, out=False, why="no answer"), slow
    )
    assert not keeper.roster.member("web", A).up
    assert (keeper.roster.member("web", B).state is State.DRAINING) is not fails


def test_what_an_operator_changes_is_carried_out_once() -> None:
    carried: list[int] = []

    async def play() -> None:
        keeper = Keeper(CONFIG, lambda config, ended, withdrawn: carried.append(len(config.services)))
        settled = Settles(keeper)
        following = asyncio.ensure_future(keeper.follow())
        await keeper.change("weight", {"service": "web", "backend": A, "weight": 3})
        for _ in range(5):
            await asyncio.sleep(0)
        following.cancel()
        assert settled.times == 1

    asyncio.run(play())
    assert carried == [1]


class Settles:
    """Counts the rosters that became the true one."""

    def __init__(self, keeper: Keeper) -> None:
        self.times = 0
        keeper.on_settled = self.count

    def count(self) -> None:
        self.times += 1


def test_a_reload_leaves_no_cycle_behind_and_the_collector_at_work() -> None:
    cycles: list[weakref.ref[Settles]] = []

    def load() -> L4Config:
        one = Settles(Keeper(CONFIG, lambda config, ended, withdrawn: None))
        one.itself = one
        cycles.append(weakref.ref(one))
        return CONFIG

    keeper = Keeper(CONFIG, lambda config, ended, withdrawn: None)
    asyncio.run(keeper.reload(load, dry_run=False))
    try:
        assert cycles[0]() is None
        assert gc.isenabled()
    finally:
        gc.unfreeze()
