"""A worker: drives a `Proxy` inside a uvloop event loop, by what the steward says and by signals.

| signal  | does |
|---------|------|
| SIGQUIT | accepts no more, ends when the last connection has (a reload) |
| SIGTERM | the same, within `shutdown_s` |
| SIGINT  | ends at once |
| SIGUSR1 | opens the access log again |
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
from random import Random

import uvloop

from l4lb.net.logs import log
from l7.balancing.pool import Ejection, Pool
from l7.balancing.sessions import SessionTable
from l7.model import L7Config
from l7.process.blueprint import Blueprint
from l7.process.certificates import replace_certificates
from l7.process.channel import Channel, Json
from l7.process.children import unblock_signals
from l7.process.links import Wire
from l7.process.sockets import BACKLOG
from l7.proxy.log import AccessLog
from l7.proxy.service import Parts, Proxy
from l7.routing.router import Router

Sockets = list[tuple[str, socket.socket]]


def work(blueprint: Blueprint, number: int, sockets: Sockets, channel: Channel) -> int:
    """The life of a worker process; its exit code."""
    # What the master made stays: the collector need not look at it, nor copy its pages by doing so.
    gc.freeze()
    # libuv would have epoll told of each connection through io_uring: 3 to 8 % more processor time for one.
    os.environ.setdefault("UV_USE_IO_URING", "0")
    uvloop.run(_Worker(blueprint, number, sockets, channel).run())
    return 0


class _Worker:
    def __init__(self, blueprint: Blueprint, number: int, sockets: Sockets, channel: Channel) -> None:
        self._blueprint = blueprint
        self._number = number
        self._sockets = sockets
        self._channel = channel
        self._end = asyncio.Event()
        self._finishing: asyncio.Task[None] | None = None
        self._is_serving = False

    async def run(self) -> None:
        blueprint = self._blueprint
        config = blueprint.config
        self._log = AccessLog(config.access_log) if config.access_log else None
        parts = Parts(
            config=config,
            router=Router(config.routes),
            pools=self._make_pools(config),
            layout=blueprint.layout,
            row=blueprint.ledger.counters.row(self._number),
            contexts={listener: store.front for listener, store in blueprint.stores.items()},
            backend_contexts=blueprint.backend_contexts,
            pages=blueprint.pages,
        )
        self._proxy = Proxy(parts, self._log)
        self._wire = Wire(self._channel, self._on_message, self._on_closed)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGQUIT, self._finish, None)
        loop.add_signal_handler(signal.SIGTERM, self._finish, config.shutdown_s)
        loop.add_signal_handler(signal.SIGINT, self._end.set)
        loop.add_signal_handler(signal.SIGUSR1, self._reopen_log)
        unblock_signals()
        await self._end.wait()
        self._proxy.close()
        self._wire.close()

    def _make_pools(self, config: L7Config) -> dict[str, Pool]:
        # Not the module's own generator: forked workers would all draw the same.
        random = Random(secrets.randbits(64))
        tables = {
            name: SessionTable(memoryview(memory.content))
            for name, memory in self._blueprint.sessions.items()
        }
        return {
            pool.name: Pool(
                pool,
                self._blueprint.secret,
                random,
                table=tables.get(pool.name),
                on_ejection=self._on_ejection,
            )
            for pool in config.pools
        }

    # -- messages

    def _on_message(self, message: Json, _: list[int]) -> None:
        match message:
            case {"do": "serve"}:
                asyncio.get_running_loop().create_task(self._serve())
            case {"do": "certificates", "listeners": listeners}:
                replace_certificates(self._blueprint, listeners)
            case {"do": "ask", "id": number, "what": "describe"}:
                self._wire.send({"id": number, "answer": self._proxy.describe()})
            case {"do": "ask", "id": number}:
                self._wire.send({"id": number, "answer": self._proxy.apply(message)})
            case _:
                self._proxy.apply(message)

    def _on_closed(self, why: str) -> None:
        # The steward that held the other end comes back with it, or the master is gone and has said so.
        log("nobody speaks to this worker any more", level=logging.WARNING, worker=self._number, why=why)

    def _on_ejection(self, ejection: Ejection) -> None:
        words = {"pool": ejection.pool, "backend": ejection.server, "why": ejection.why}
        self._wire.send({"event": "ejected", **words, "until_s": ejection.until_s})

    # -- serving

    async def _serve(self) -> None:
        """Begins to accept; a second steward may ask for it, too."""
        if not self._is_serving:
            self._is_serving = True
            for listener, sock in self._sockets:
                sock.listen(BACKLOG)
                await self._proxy.serve(listener, sock)
        self._wire.send({"event": "serving"})

    def _finish(self, within_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        if self._finishing is not None:
            self._finishing.cancel()
        self._finishing = loop.create_task(self._finish_and_end(within_s))

    async def _finish_and_end(self, within_s: float | None) -> None:
        await self._proxy.finish(within_s)
        self._end.set()

    def _reopen_log(self) -> None:
        if self._log is not None:
            self._log.reopen()
