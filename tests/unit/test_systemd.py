"""What systemd is told, and the unit that it reads."""

from __future__ import annotations

import asyncio
import configparser
import os
import socket
from pathlib import Path

import pytest

from l4lb.net import systemd

UNITS = Path(__file__).parents[2] / "scripts/systemd"


@pytest.fixture
def told(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def test_words_are_sent_as_lines(told):
    systemd.notify(READY=1, STATUS="balancing")
    assert told.recv(1024) == b"READY=1\nSTATUS=balancing"


def test_a_reload_says_when_it_began(told):
    systemd.notify_reloading()
    first, second = told.recv(1024).decode().split("\n")
    assert first == "RELOADING=1"
    assert second.removeprefix("MONOTONIC_USEC=").isdecimal()


def test_without_systemd_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify(READY=1)
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
    systemd.notify(READY=1)


def test_the_watchdog_is_answered_three_times_in_its_time(told, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))

    async def watch() -> None:
        task = asyncio.create_task(systemd.feed_watchdog())
        for _ in range(3):
            assert await asyncio.to_thread(told.recv, 64) == b"WATCHDOG=1"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(watch())


@pytest.mark.parametrize("variables", [{}, {"WATCHDOG_USEC": "30000", "WATCHDOG_PID": "1"}])
def test_a_watchdog_that_is_not_ours_is_not_answered(told, monkeypatch, variables):
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    asyncio.run(asyncio.wait_for(systemd.feed_watchdog(), 5))


@pytest.mark.parametrize(
    ("name", "capabilities"),
    [("l4lb", "CAP_NET_ADMIN CAP_NET_RAW"), ("l7lb", "CAP_NET_BIND_SERVICE")],
)
def test_a_unit_asks_for_no_more_than_it_needs(name, capabilities):
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNITS / f"{name}.service")
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["User"] != "root"
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == capabilities
    assert service["NoNewPrivileges"] == "yes"
    assert "WatchdogSec" in service
