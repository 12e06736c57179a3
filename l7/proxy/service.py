"""The proxy of one worker: its listeners, connections and pools, and what can be done to them."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any

from l7.balancing.pool import Pool
from l7.balancing.server import Server, State
from l7.counters import Row, WorkerColumn
from l7.model import Backend, BackendAddress, L7Config, Listener
from l7.proxy.admission import Admission
from l7.proxy.answers import Pages
from l7.proxy.layout import Layout
from l7.proxy.listening import Admit, Listening
from l7.proxy.log import AccessLog
from l7.proxy.passing import Passing
from l7.proxy.peers import introduce, make_believer
from l7.proxy.upstream import Upstream
from l7.proxy.way import Way
from l7.proxy.worker import ListenerPart, Worker
from l7.routing.router import Router
from l7.wire.trust import Trust

TICK_S = 0.5
_FLUSH_S = 1.0

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a proxy is made of. `row` is the worker's row of counters in `layout`."""

    config: L7Config
    router: Router
    pools: Mapping[str, Pool]
    layout: Layout
    row: Row
    contexts: Mapping[str, ssl.SSLContext]
    """By listener, of those that end TLS."""
    backend_contexts: Mapping[str, ssl.SSLContext]
    """By pool, of those whose backends speak TLS."""
    pages: Pages
    """What `config.error_pages` names."""


class Proxy:
    """Everything between a bound socket and the access log. Needs a running uvloop event loop."""

    def __init__(self, parts: Parts, log: AccessLog | None) -> None:
        config = parts.config
        self._parts = parts
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._worker = Worker(
            self._loop,
            parts.row,
            parts.layout,
            log,
            parts.router.route,
            config,
            parts.pages,
            make_believer(Trust(config.trusted_proxies)),
            secrets.randbits(64),
        )
        for name, pool in parts.pools.items():
            context = parts.backend_contexts.get(name)
            self._worker.upstreams[name] = Upstream(self._worker, pool, parts.layout, context)
        self._worker.ways = [
            Way(route, parts.layout.routes[route.number], self._worker.upstreams)
            for route in parts.router.routes
        ]
        self._listeners = {listener.name: self._make_part(listener) for listener in config.listeners}
        self._listening: list[Listening] = []
        self._changed = asyncio.Event()
        """Something has ended; who waits for the last of it looks again."""
        self._worker.on_change = self._on_change
        self._flushed_s = 0.0
        self._ticking: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._tick()

    # -- accepting

    async def serve(self, listener: str, sock: socket.socket) -> None:
        """Accepts connections of `listener` on `sock`, which is bound and listening; closes it in the end."""
        part = self._listeners[listener]
        listening = Listening(
            part,
            sock,
            self._parts.contexts.get(listener),
            self._parts.config.timeouts.header_s,
            self._make_admission(part) if Admission.is_needed(part.settings) else None,
        )
        self._listening.append(listening)
        await listening.open()

    def _make_admission(self, part: ListenerPart) -> Admit:
        parts = self._parts
        passing = Passing(self._worker, parts.pools, parts.config.timeouts, parts.layout.ends)
        context = parts.contexts.get(part.settings.name)
        return Admission(part, context, parts.config.timeouts.header_s, passing).admit

    def _make_part(self, listener: Listener) -> ListenerPart:
        columns = self._parts.layout.listeners[listener.name]
        return ListenerPart(self._worker, listener, columns, partial(introduce, listener))

    def _on_change(self) -> None:
        """Something has ended that somebody may wait for."""
        self._changed.set()
        self._worker.is_watched = self._worker.is_finishing
        for listening in self._listening:
            listening.check_room()

    # -- ending

    async def finish(self, within_s: float | None) -> None:
        """Accepts no more than what waits in sockets that are given up, lets every request and tunnel end,
        and returns when all have; after `within_s` seconds those that are left are cut off."""
        for listening in self._listening:
            listening.finish()
        self._worker.is_finishing = self._worker.is_watched = True
        for connection in list(self._worker.connections):
            connection.finish()
        self._close_kept()
        deadline_s = None if within_s is None else self._loop.time() + within_s
        try:
            async with asyncio.timeout_at(deadline_s):
                while self._has_work():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self._stop()

    def _close_kept(self) -> None:
        for pool in self._parts.pools.values():
            for server in pool.servers:
                server.idle.close()

    def _has_work(self) -> bool:
        # `connections` has nobody whose TLS handshake is under way.
        return bool(
            self._worker.open
            or self._worker.relays
            or any(listening.has_work for listening in self._listening)
        )

    def _stop(self) -> None:
        for relay in list(self._worker.relays):
            relay.close()
        for connection in list(self._worker.connections):
            connection.stop()

    def close(self) -> None:
        """Ends everything at once, and the log."""
        self._is_closed = True
        for listening in self._listening:
            listening.close()
        self._worker.is_finishing = True
        self._stop()
        self._close_kept()
        if self._ticking is not None:
            self._ticking.cancel()
        if self._log is not None:
            self._log.close()

    # -- time

    def _tick(self) -> None:
        if self._is_closed:
            return
        now_s = self._loop.time()
        # The wheel has a clock of its own, the same one but finer.
        self._worker.turn()
        for pool in self._parts.pools.values():
            pool.tick(now_s)
        if self._log is not None and now_s >= self._flushed_s + _FLUSH_S:
            self._log.flush()
            self._flushed_s = now_s
            lost = self._parts.layout.worker + WorkerColumn.WORKER_LOG_LINES_LOST
            self._parts.row[lost] = self._log.lost
        self._ticking = self._loop.call_later(TICK_S, self._tick)

    # -- changes

    def apply(self, message: Json) -> Any:
        """Takes a message of the steward; returns what an `ask` is answered with, else None. What names a
        pool or backend that is gone is left out: another message has overtaken it."""
        match message:
            case {"do": "ask", "what": what}:
                return self.describe() if what == "describe" else None
            case {"do": "add", "pool": name} if name in self._parts.pools:
                self._add(self._parts.pools[name], message)
            case {"do": do, "pool": name, "backend": backend} if name in self._parts.pools:
                pool = self._parts.pools[name]
                server = pool.find(backend)
                if server is not None:
                    self._change(do, pool, server, message)
        return None

    def _change(self, do: str, pool: Pool, server: Server, message: Json) -> None:
        now_s = self._worker.now_s()
        if do == "remove":
            pool.remove(server, now_s)
            server.idle.close()
        elif do == "endpoints":
            pool.set_endpoints(server, [(host, port) for host, port in message["addresses"]], now_s)
            server.idle.close_kept()
        elif do == "eject":
            pool.eject(server, message["why"], message["until_s"], now_s)
        elif do == "state":
            if message.get("weight") is not None and message["weight"] != server.weight:
                pool.set_weight(server, message["weight"], now_s)
            state = State(message["state"])
            if state is not server.state:
                pool.set_state(server, state, message.get("why", ""), now_s)
                if state is not State.UP:
                    server.idle.close_kept()

    def _add(self, pool: Pool, message: Json) -> None:
        if pool.find(message["backend"]) is not None:
            return
        host = message["host"] if message["is_name"] else ip_address(message["host"])
        backend = Backend(BackendAddress(host, message["port"]), message["weight"])
        server = pool.add(backend, self._worker.now_s())
        columns = self._parts.layout.backend(pool.name, backend.name, message.get("spare"))
        self._worker.upstreams[pool.name].open_lane(server, columns)

    def describe(self) -> Json:
        """What the admin socket shows of a worker: stable keys, seconds."""
        return {
            "connections": len(self._worker.connections),
            "tunnels": len(self._worker.relays),
            "admitting": sum(listening.admitting for listening in self._listening),
            "finishing": bool(self._worker.is_finishing),
            "listeners": {name: part.open for name, part in self._listeners.items()},
            "pools": {
                name: {
                    "waiting": pool.waiting,
                    "backends": {server.name: _describe(server) for server in pool.servers},
                }
                for name, pool in self._parts.pools.items()
            },
        }


def _describe(server: Server) -> Json:
    return {
        "state": str(server.state),
        "why": server.why,
        "weight": server.weight,
        "active": server.active,
        "kept": len(server.idle.idle),
        "ejected_until_s": server.ejected_until_s,
        "average_s": server.average_s,
    }
