"""When checks are made, in a time that jumps from one event to the next."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from ipaddress import ip_address
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from l4lb.model import CheckType, HealthCheck
from l4lb.net.checks.monitor import Key, Monitor, Plan
from l4lb.net.checks.target import Outcome, Target

INTERVAL_S = 5.0
TICK_S = 0.011
KEY: Key = ("web", "b1")


class JumpingSelector(selectors.SelectSelector):
    """Waits for nothing: what it would wait is added to the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing would ever happen"
            self.now_s += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.selector = JumpingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now_s


class World:
    """A monitor whose checks last as long as told, with what was checked when."""

    def __init__(self, *, at_once: int = 256, seed: int = 1) -> None:
        self.began: dict[str, list[float]] = {}
        self.outcomes: list[tuple[Key, Outcome]] = []
        self.lasts_s: dict[str, float] = {}
        self.most_at_once = 0
        self.active: list[str] = []
        self.on_outcome: Callable[[Key, Outcome], None] = lambda key, outcome: None
        self.monitor = Monitor(self._take, Random(seed), check=self._check, at_once=at_once)

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time() - 1000.0

    async def _check(self, target: Target, settings: HealthCheck) -> Outcome:
        name = str(target.address)
        assert name not in self.active, "checked twice at once"
        self.active.append(name)
        self.most_at_once = max(self.most_at_once, len(self.active))
        self.began.setdefault(name, []).append(self.now_s)
        try:
            await asyncio.sleep(self.lasts_s.get(name, 0.001))
        finally:
            self.active.remove(name)
        return Outcome(True, f"check {len(self.began[name])} of {name}")

    def _take(self, key: Key, outcome: Outcome) -> None:
        self.outcomes.append((key, outcome))
        self.on_outcome(key, outcome)

    def times(self, name: str = "10.0.0.1") -> list[float]:
        return self.began.get(name, [])

    def pauses(self, name: str = "10.0.0.1") -> list[float]:
        times = self.times(name)
        return [later - earlier for earlier, later in pairwise(times)]


def plan(number: int = 1, interval_s: float = INTERVAL_S) -> Plan:
    address = ip_address(f"10.0.{number >> 8}.{number & 255}")
    return Plan(Target(address, 80), HealthCheck(CheckType.TCP, interval_s=interval_s))


def plans(count: int, interval_s: float = INTERVAL_S) -> Mapping[Key, Plan]:
    return {("web", f"b{n}"): plan(n, interval_s) for n in range(1, count + 1)}


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())


def in_world(**words: int) -> Callable[[Callable[[World], Awaitable[None]]], Callable[[], None]]:
    """The test gets a world, which is closed at its end."""

    def decorate(test: Callable[[World], Awaitable[None]]) -> Callable[[], None]:
        async def main() -> None:
            world = World(**words)
            await test(world)
            await world.monitor.close()
            assert not world.active and not world.monitor.running and not world.monitor.waiting
            before = len(world.outcomes)
            await asyncio.sleep(100)
            assert len(world.outcomes) == before

        def in_its_time() -> None:
            run(main)

        in_its_time.__name__ = test.__name__
        return in_its_time

    return decorate


@in_world()
async def test_every_interval_with_jitter(world):
    world.monitor.set_targets({KEY: plan()})
    await asyncio.sleep(500)
    assert 0 <= world.times()[0] <= 1 + TICK_S
    second, *pauses = world.pauses()
    assert 0.2 * INTERVAL_S <= second <= INTERVAL_S + TICK_S
    assert all(0.9 * INTERVAL_S <= pause <= 1.1 * INTERVAL_S + TICK_S for pause in pauses)
    assert max(pauses) - min(pauses) > 0.1 * INTERVAL_S
    assert 95 <= len(pauses) <= 105
    assert [key for key, _ in world.outcomes] == [KEY] * len(world.times())
    assert world.outcomes[0][1].why == "check 1 of 10.0.0.1"


def test_chance_is_handed_in():
    async def times(seed: int) -> dict[str, list[float]]:
        world = World(seed=seed)
        world.monitor.set_targets(plans(3))
        await asyncio.sleep(30)
        await world.monitor.close()
        start = next(iter(world.began.values()))[0]
        return {name: [round(at - start, 6) for at in found] for name, found in world.began.items()}

    async def main() -> None:
        assert await times(1) == await times(1) != await times(2)

    run(main)


@in_world()
async def test_a_few_are_all_asked_within_a_second_and_spread(world):
    world.monitor.set_targets(plans(100))
    await asyncio.sleep(1.1)
    firsts = sorted(times[0] for times in world.began.values())
    assert len(firsts) == 100
    assert firsts[0] < 0.05 and firsts[-1] <= 1 + TICK_S
    assert max(b - a for a, b in pairwise(firsts)) < 0.06
    assert world.most_at_once < 10
    order = sorted(world.began, key=lambda name: world.began[name][0])
    assert order != sorted(order, key=ip_address)


@in_world()
async def test_many_are_asked_over_an_interval_and_evenly_from_then_on(world):
    world.monitor.set_targets(plans(5000))
    await asyncio.sleep(1)
    assert 900 < len(world.began) < 1100
    await asyncio.sleep(30)
    assert len(world.began) == 5000
    seconds = [0] * 30
    for times in world.began.values():
        for at in times:
            if at < 30:
                seconds[int(at)] += 1
    assert max(seconds) < 1250 and min(seconds) > 750
    assert world.monitor.waiting == 0


@in_world()
async def test_an_interval_below_a_second(world):
    world.monitor.set_targets({KEY: plan(interval_s=0.2)})
    world.monitor.hurry(KEY, True)
    await asyncio.sleep(10)
    assert world.times()[0] <= 0.2 + TICK_S
    assert all(0.18 <= pause <= 0.22 + TICK_S for pause in world.pauses())


@pytest.mark.parametrize(("interval_s", "pause_s"), [(30.0, 10.0), (6.0, 2.0), (2.0, 1.0), (0.5, 0.5)])
def test_in_a_hurry(interval_s, pause_s):
    @in_world()
    async def it(world: World) -> None:
        world.on_outcome = lambda key, outcome: world.monitor.hurry(key, True)
        world.monitor.set_targets({KEY: plan(interval_s=interval_s)})
        await asyncio.sleep(interval_s * 10)
        assert len(world.pauses()) > 8
        assert all(0.9 * pause_s <= pause <= 1.1 * pause_s + TICK_S for pause in world.pauses())
        world.on_outcome = lambda key, outcome: world.monitor.hurry(key, False)
        await asyncio.sleep(interval_s * 10)
        assert all(0.9 * interval_s <= p <= 1.1 * interval_s + TICK_S for p in world.pauses()[-6:])

    it()


@in_world()
async def test_hurry_between_two_checks_brings_the_next_one_forward(world):
    world.monitor.hurry(KEY, True)  # not known: nothing happens
    world.monitor.set_targets({KEY: plan(interval_s=60.0)})
    await asyncio.sleep(150)
    count = len(world.times())
    while world.now_s - world.times()[-1] < 25:
        await asyncio.sleep(1)
        assert world.now_s < 400
    before = len(world.times())
    world.monitor.hurry(KEY, True)
    await asyncio.sleep(0.05)
    assert len(world.times()) == before + 1 > count  # 20 s have passed: it is due


@in_world()
async def test_hurry_never_puts_a_check_off(world):
    world.monitor.set_targets({KEY: plan()})
    await asyncio.sleep(1.1)
    world.monitor.hurry(KEY, True)
    await asyncio.sleep(1.9)
    assert len(world.times()) == 2


@in_world()
async def test_a_check_that_lasts_longer_than_the_interval_is_followed_at_once(world):
    world.lasts_s["10.0.0.1"] = 7.0
    world.monitor.set_targets({KEY: plan()})
    await asyncio.sleep(100)
    assert all(7.0 <= pause <= 7.0 + TICK_S for pause in world.pauses())


@in_world(at_once=4)
async def test_no_more_at_once_than_allowed_and_all_get_their_turn(world):
    world.lasts_s = {f"10.0.0.{n}": 3.0 for n in range(1, 31)}
    world.monitor.set_targets(plans(40))
    await asyncio.sleep(10)
    assert world.monitor.waiting > 0 and world.monitor.running == 4
    await asyncio.sleep(200)
    assert world.most_at_once == 4
    counts = [len(times) for times in world.began.values()]
    assert len(counts) == 40 and max(counts) - min(counts) <= 2


@in_world()
async def test_what_stays_is_not_touched(world):
    world.lasts_s["10.0.0.1"] = 3.0
    world.monitor.set_targets({KEY: plan(1), ("web", "b2"): plan(2)})
    while not world.times():
        await asyncio.sleep(0.1)
    assert world.active == ["10.0.0.1"]
    world.monitor.set_targets({KEY: plan(1), ("web", "b3"): plan(3)})
    assert world.active == ["10.0.0.1"]
    second = len(world.times("10.0.0.2"))
    await asyncio.sleep(3.1)
    assert world.outcomes[-1][0] in (KEY, ("web", "b3"))
    assert (KEY, Outcome(True, "check 1 of 10.0.0.1")) in world.outcomes
    await asyncio.sleep(50)
    assert len(world.times("10.0.0.2")) == second and len(world.times("10.0.0.3")) > 5


@in_world()
async def test_nothing_is_heard_of_what_was_taken_away_or_changed(world):
    world.lasts_s["10.0.0.1"] = 3.0
    world.monitor.set_targets({KEY: plan()})
    while not world.active:
        await asyncio.sleep(0.1)
    changed = plan(1, interval_s=8.0)
    world.monitor.set_targets({KEY: changed})
    await asyncio.sleep(1.1)  # asked anew within a second, and the first check was ended
    assert len(world.times()) == 2 and not world.outcomes
    await asyncio.sleep(50)
    assert all(7.2 <= pause <= 8.8 + TICK_S for pause in world.pauses()[2:])
    world.outcomes.clear()
    while not world.active:
        await asyncio.sleep(0.1)
    world.monitor.set_targets({})
    await asyncio.sleep(50)
    assert not world.outcomes and not world.active


@in_world()
async def test_hurry_outlasts_a_change(world):
    world.monitor.set_targets({KEY: plan(1, 30.0)})
    world.monitor.hurry(KEY, True)
    world.monitor.set_targets({KEY: plan(1, 15.0)})
    await asyncio.sleep(60)
    assert all(4.5 <= pause <= 5.5 + TICK_S for pause in world.pauses())


@in_world()
async def test_targets_may_change_in_the_callback(world):
    world.on_outcome = lambda key, outcome: world.monitor.set_targets({})
    world.monitor.set_targets(plans(3))
    await asyncio.sleep(50)
    assert len(world.outcomes) == 1


@in_world()
async def test_a_callback_that_raises_is_told_of_and_ends_nothing(world):
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))

    def fail(key: Key, outcome: Outcome) -> None:
        raise RuntimeError("a defect")

    world.on_outcome = fail
    world.monitor.set_targets({KEY: plan()})
    await asyncio.sleep(50)
    assert len(world.times()) >= 9
    assert len(told) == len(world.outcomes)
    assert str(told[0]["exception"]) == "a defect"


@in_world()
async def test_any_order_of_changes_ends_with_the_targets_that_were_set_last(world):
    random = Random(7)
    for _ in range(60):
        chosen = {
            ("web", f"b{n}"): plan(n, random.choice([2.0, 3.0])) for n in random.sample(range(1, 20), 8)
        }
        world.monitor.set_targets(chosen)
        if random.random() < 0.5:
            world.monitor.hurry(random.choice(list(chosen)), random.random() < 0.5)
        await asyncio.sleep(random.random() * 3)
    await asyncio.sleep(5)
    world.outcomes.clear()
    await asyncio.sleep(30)
    assert {key for key, _ in world.outcomes} == set(chosen)
