"""Connections that are passed through undecrypted, or are no HTTP at all: the way to a backend."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from l7.balancing.pool import Pool
from l7.balancing.server import Outcome, Server
from l7.counters import BackendColumn, EndColumn
from l7.model import Timeouts
from l7.proxy.relay import Relay
from l7.proxy.worker import ListenerPart, Worker
from l7.routing.request import PlainRequest
from l7.wire.peer import Peer, make_peer, read_address
from l7.wire.proxyprotocol import Endpoint, ProxyHeader, build_header

_NOTHING_ASKED = PlainRequest(b"CONNECT", b"/")
"""Schedulers that go by the request have nothing to go by here, and go by the client's address."""


@dataclass(slots=True)
class Passage:
    """What the log says of a connection that is passed through."""

    peer: Peer
    server_name: str
    """Empty where none was named."""
    pool: str
    began_s: float
    backend: str = ""
    tries: int = 0
    """Backends that it was given to, the last of which is `backend`."""
    bytes_in: int = 0
    bytes_out: int = 0
    end: int = EndColumn.END_POOL_DOWN


class Passing:
    """Carries connections to the backends of pools."""

    def __init__(self, worker: Worker, pools: Mapping[str, Pool], timeouts: Timeouts, ends: int) -> None:
        """`ends` is the column of the first `EndColumn`."""
        self._worker = worker
        self._ends = ends
        self._loop = asyncio.get_running_loop()
        self._pools = pools
        self._timeouts = timeouts

    async def carry(
        self,
        sock: socket.socket,
        part: ListenerPart,
        header: ProxyHeader | None,
        pool_name: str,
        server_name: str,
    ) -> None:
        """Joins a socket that `part` has accepted to a backend; returns when both are connected. OSError
        where no backend takes it. `server_name` is what its ClientHello names, for the log."""
        pool = self._pools[pool_name]
        ends = sock.getpeername()[:2], sock.getsockname()[:2]
        if header is not None and header.source is not None and header.destination is not None:
            ends = _pair(header.source), _pair(header.destination)
        peer = make_peer(part.settings.name, b"tcp", *ends)
        passage = Passage(peer, server_name, pool_name, self._worker.now_s())
        relay = Relay(self._worker, self._timeouts.upgraded_s, None)
        part.enter()
        try:
            server, backend = await self._connect(pool, passage, relay)
        except BaseException as error:
            if isinstance(error, OSError):
                self._account(passage)
            part.leave()
            raise
        count = partial(self._count, server)
        if pool.settings.proxy_protocol:
            source, destination = (_endpoint(end) for end in ends)
            backend.write(build_header(pool.settings.proxy_protocol, source, destination))

        def end(relay: Relay) -> None:
            count(BackendColumn.BACKEND_ACTIVE, -1)
            count(BackendColumn.BACKEND_BYTES_IN_TOTAL, relay.from_client)
            count(BackendColumn.BACKEND_BYTES_OUT_TOTAL, relay.from_backend)
            passage.bytes_in, passage.bytes_out = relay.from_client, relay.from_backend
            passage.end = relay.end
            self._account(passage)
            pool.end(server, Outcome.OK, self._worker.now_s())
            part.leave()

        relay.on_end = end
        try:
            client, _ = await self._loop.connect_accepted_socket(lambda: relay.client, sock)
        except BaseException:
            backend.abort()
            end(relay)
            raise
        relay.join(client, backend)

    async def _connect(self, pool: Pool, passage: Passage, relay: Relay) -> tuple[Server, asyncio.Transport]:
        """A connection to one of the backends, each of which is tried once."""
        tried: list[Server] = []
        while True:
            picked = pool.pick(_NOTHING_ASKED, passage.peer, self._worker.now_s(), tried)
            if picked is None:
                raise OSError("no backend")
            server = picked.server
            tried.append(server)
            passage.tries, passage.backend = len(tried), server.name
            count = partial(self._count, server)
            pool.begin(server)
            count(BackendColumn.BACKEND_REQUESTS_TOTAL, 1)
            count(BackendColumn.BACKEND_ACTIVE, 1)
            try:
                async with asyncio.timeout(self._timeouts.connect_s):
                    address, port = server.idle.next_endpoints()[0]
                    backend, _ = await self._loop.create_connection(lambda: relay.backend, address, port)
                count(BackendColumn.BACKEND_CONNECTS_TOTAL, 1)
                return server, backend
            except (OSError, TimeoutError) as error:
                is_late = isinstance(error, TimeoutError)
                passage.end = EndColumn.END_CONNECT_TIMEOUT if is_late else EndColumn.END_CONNECT_FAILED
                count(BackendColumn.BACKEND_CONNECT_FAILURES_TOTAL, 1)
                count(BackendColumn.BACKEND_ACTIVE, -1)
                pool.end(server, Outcome.FAILED, self._worker.now_s())

    def _account(self, passage: Passage) -> None:
        """Counts how it ended, and writes its line."""
        self._worker.row.increase(self._ends + passage.end)
        if self._worker.log is not None:
            self._worker.log.add_passed(passage, self._worker.now_s())

    def _count(self, server: Server, column: int, amount: int) -> None:
        self._worker.row.increase(server.idle.columns + column, amount)


def _pair(endpoint: Endpoint) -> tuple[str, int]:
    return str(endpoint[0]), endpoint[1]


def _endpoint(pair: tuple[str, int]) -> Endpoint:
    return read_address(pair[0]), pair[1]
