"""What passive checks make of how flows begin, and how little is asked and told while nothing happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from types import SimpleNamespace

import pytest

from l4lb.cli import watch as watching
from l4lb.cli.keeper import Keeper
from l4lb.cli.watch import Watch
from l4lb.control.config import parse_config
from l4lb.control.roster import Key
from l4lb.model import L4Config, OnDown

A, B = "10.2.0.11:80", "10.2.0.12:80"
CONFIG = """
l4:
  services:
    - name: web
      listen: 192.0.2.1:80/tcp
      {passive}
      backends: [10.2.0.11:80, 10.2.0.12:80]
"""
PASSIVE = "passive: {failures: 2, inhibit: 10s, longest: 60s}"


def config(passive: str = PASSIVE) -> L4Config:
    return parse_config(CONFIG.format(passive=passive), "test.yaml")


class Reports(Keeper):
    """A keeper that writes down what it is told."""

    def __init__(self) -> None:
        super().__init__(config(), self._nothing)
        self.heard: list[tuple[str, bool, str]] = []

    def report(self, key: Key, *, up: bool, out: bool, why: str) -> None:
        self.heard.append((key[1], out, why))
        super().report(key, up=up, out=out, why=why)

    @staticmethod
    def _nothing(config: L4Config, ended: Iterable[tuple[Key, OnDown]]) -> None:
        pass


class Scene:
    """A watch with its clock and its counters in the hands of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        self.begun: dict[Key, tuple[int, int]] = {}
        self.keeper = Reports()
        self.watch = Watch(self.keeper, self._take, lambda key: 0x4000_0001)
        monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: self.now_s))

    def _take(self) -> dict[Key, tuple[int, int]]:
        taken, self.begun = self.begun, {}
        return taken

    def look(self, **counts: tuple[int, int]) -> list[tuple[str, bool, str]]:
        """What is told after flows to `a` or `b` began or failed to."""
        self.begun = {("web", {"a": A, "b": B}[name]): count for name, count in counts.items()}
        self.keeper.heard.clear()
        self.watch._look_at_flows()
        return list(self.keeper.heard)


@pytest.fixture
def scene(monkeypatch):
    async def made() -> Scene:
        scene = Scene(monkeypatch)
        scene.watch.begin()
        return scene

    return asyncio.run(made())


def test_nothing_is_told_while_nothing_changes(scene):
    assert scene.look() == []
    assert scene.look(a=(5, 1), b=(3, 0)) == []
    assert scene.look() == []


def test_a_backend_goes_out_and_comes_back_by_time_each_told_once(scene):
    assert scene.look(a=(0, 1)) == []
    assert scene.look(a=(0, 1)) == [(A, True, "2 flows in a row never began; tried again in 10 s")]
    assert scene.keeper.roster.member("web", A).out
    scene.now_s += 9.9
    assert scene.look() == []
    assert scene.look(a=(0, 7)) == []
    scene.now_s += 0.1
    assert scene.look() == [(A, False, "its time out is over")]
    assert not scene.keeper.roster.member("web", A).out
    assert scene.look() == []


def test_one_that_fails_on_trial_is_out_again_in_the_same_look(scene):
    scene.look(a=(0, 2))
    scene.now_s += 10
    assert scene.look(a=(0, 1)) == [(A, True, "1 flow never began; tried again in 20 s")]
    assert scene.keeper.roster.member("web", A).out


def test_who_was_taken_out_by_a_check_that_is_gone_comes_back(scene):
    scene.look(b=(0, 2))
    scene.keeper.roster.adopt(config(passive=""))
    scene.keeper.on_settled()
    assert not scene.keeper.roster.member("web", B).out
    assert scene.look(b=(0, 100)) == []


def test_who_was_taken_out_before_a_replacement_stays_out_until_its_time_is_over(scene, monkeypatch):
    scene.look(a=(0, 1), b=(0, 2))

    async def made() -> Scene:
        heir = Scene(monkeypatch)
        heir.keeper.roster.restore(json.loads(json.dumps(scene.keeper.roster.dump())))
        heir.watch.restore(json.loads(json.dumps(scene.watch.dump())))
        heir.watch.begin()
        return heir

    heir = asyncio.run(made())
    assert heir.look() == []
    assert heir.look(a=(0, 1)) == [(A, True, "2 flows in a row never began; tried again in 10 s")]
    heir.now_s += 10.5
    assert {(name, out) for name, out, _ in heir.look()} == {(A, False), (B, False)}


def test_who_was_taken_out_before_a_replacement_comes_back(monkeypatch):
    async def made() -> Scene:
        scene = Scene(monkeypatch)
        scene.keeper.roster.member("web", A).out = True
        scene.watch.begin()
        return scene

    scene = asyncio.run(made())
    assert scene.look() == [(A, False, "its time out is over")]
    assert scene.look() == []
