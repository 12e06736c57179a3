"""Metrics over HTTP: what the process costs, and the site on TCP that Prometheus scrapes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from l4lb.control.prometheus import CONTENT_TYPE, Process
from l4lb.errors import L4lbError
from l4lb.model import Address

_SELF = Path("/proc/self")


def read_process() -> Process:
    """What this process costs (proc_pid_stat(5), proc_pid_statm(5))."""
    # The name in parentheses may hold spaces; what is counted from begins behind it with field 3.
    fields = (_SELF / "stat").read_text().rpartition(")")[2].split()
    since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    times = os.times()
    return Process(
        cpu_s=times.user + times.system,
        resident_bytes=int((_SELF / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        started_s=round(booted + since_boot, 2),
        open_files=len(os.listdir(_SELF / "fd")),  # noqa: PTH208 - names alone, no paths
    )


def read_cost(pid: int) -> tuple[float, int]:
    """CPU seconds and resident bytes of any process. OSError where it is gone."""
    directory = Path("/proc") / str(pid)
    fields = (directory / "stat").read_text().rpartition(")")[2].split()
    pages = int((directory / "statm").read_text().split()[1])
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")


def metrics_response(text: str) -> web.Response:
    """The answer to a scrape."""
    return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})


class MetricsSite:
    """`GET /metrics` on TCP, where the configuration wants it; `metrics` makes the text of one scrape."""

    def __init__(self, metrics: Callable[[], str]) -> None:
        self._metrics = metrics
        self._listen: tuple[Address, int] | None = None
        self._runner: web.AppRunner | None = None

    async def move(self, listen: tuple[Address, int] | None) -> None:
        """Serves there from now on, or nowhere. On an error, an L4lbError, it serves where it did."""
        before = self._listen
        if listen == before:
            return
        await self.stop()  # first: the new address may be of the old one's port
        if listen is None:
            return
        try:
            self._runner = await _start(listen, self._metrics)
            self._listen = listen
        except L4lbError:
            with contextlib.suppress(L4lbError):
                await self.move(before)
            raise

    async def stop(self) -> None:
        """Serves nowhere."""
        self._listen = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


async def _start(listen: tuple[Address, int], metrics: Callable[[], str]) -> web.AppRunner:
    """Serves `GET /metrics` on TCP until the runner that is returned is cleaned up.

    `metrics` makes the text of one scrape. L4lbError where the address cannot be listened on.
    """

    async def answer(_: web.Request) -> web.StreamResponse:
        return metrics_response(metrics())

    app = web.Application()
    app.add_routes([web.get("/metrics", answer)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    address, port = listen
    try:
        await web.TCPSite(runner, str(address), port).start()
    except OSError as error:
        await runner.cleanup()
        shown = f"[{address}]" if address.version == 6 else str(address)
        raise L4lbError(f"l4.metrics: {shown}:{port}: cannot be listened on: {error.strerror}") from error
    return runner
