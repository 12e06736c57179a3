"""A proxy in the test's own process, with backends that remember every byte that they are sent.

@proxied
async def test_something():
    async with Backend(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")) as backend:
        async with Rig(backend) as rig:
            reply = await rig.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from functools import wraps
from ipaddress import ip_address
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Self

import h11
import uvloop

from l7.balancing.pool import Pool
from l7.balancing.sessions import SessionTable
from l7.http1.rules import RULES
from l7.model import AccessLog as LogSettings
from l7.model import Backend as BackendSettings
from l7.model import BackendAddress, L7Config, Listener, LogFormat, Match, PathKind, PathMatch, Route, Share
from l7.model import Pool as PoolSettings
from l7.proxy.answers import read_pages
from l7.proxy.layout import Layout
from l7.proxy.log import AccessLog
from l7.proxy.service import Parts, Proxy
from l7.routing.router import Router

TEST_TIMEOUT_S = 30.0
LOCALHOST = ip_address("127.0.0.1")
EVERYTHING = Match(paths=(PathMatch(PathKind.PREFIX, "/"),))

Handler = Callable[["Exchange"], Awaitable[None]]


def proxied(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs a test in uvloop, as workers do; what it leaves behind without having been caught fails it."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        faults: list[dict[str, Any]] = []

        async def guarded() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
            async with asyncio.timeout(TEST_TIMEOUT_S):
                await test(*args, **kwargs)

        uvloop.run(guarded())
        assert not faults, faults

    return run


class Exchange:
    """One connection of a backend: what it received so far, and the means to answer."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer
        self.received = bytearray()

    async def read(self) -> bytes:
        """Some bytes; b"" at the end."""
        data = await self.reader.read(1 << 16)
        self.received += data
        return data

    async def until(self, text: bytes) -> bytes:
        """Everything up to and with `text`; raises IncompleteReadError at the end."""
        data = await self.reader.readuntil(text)
        self.received += data
        return data

    async def exactly(self, count: int) -> bytes:
        """So many bytes."""
        data = await self.reader.readexactly(count)
        self.received += data
        return data

    async def head(self) -> bytes:
        """The head of the next request."""
        return await self.until(b"\r\n\r\n")

    async def body(self, head: bytes) -> bytes:
        """The body that belongs to a head, chunks and all."""
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            return await self.until(b"0\r\n\r\n")
        if b"content-length: " in lower:
            return await self.exactly(int(lower.split(b"content-length: ")[1].split(b"\r\n")[0]))
        return b""

    async def send(self, data: bytes) -> None:
        """Sends."""
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Ends the connection with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.writer.transport.abort()


def answer(*replies: bytes) -> Handler:
    """Answers the requests of a connection with these, one after the other, the last again and again."""

    async def handle(exchange: Exchange) -> None:
        number = 0
        while True:
            head = await exchange.head()
            await exchange.body(head)
            await exchange.send(replies[min(number, len(replies) - 1)])
            number += 1

    return handle


def ok(body: bytes = b"ok", *headers: bytes) -> bytes:
    """A whole answer."""
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), lines, body)


class Backend:
    """A server that does as its handler says and remembers what it was sent, by connection."""

    def __init__(self, handler: Handler, context: ssl.SSLContext | None = None) -> None:
        self.handler = handler
        self.connections: list[Exchange] = []
        self.port = 0
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrived = asyncio.Condition()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def listen(self) -> None:
        """Begins to accept, again at the same port."""
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, ssl=self._context, limit=1 << 20
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Refuses connections, and breaks those that there are."""
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def received(self) -> list[bytes]:
        """All bytes, by connection."""
        return [bytes(connection.received) for connection in self.connections]

    async def until_connected(self, count: int) -> None:
        """Waits for that many connections in all."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.connections) >= count)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        exchange = Exchange(len(self.connections), reader, writer)
        self.connections.append(exchange)
        async with self._arrived:
            self._arrived.notify_all()
        try:
            await self.handler(exchange)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()


class Client:
    """A client that says exactly what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()

    async def send(self, data: bytes) -> None:
        """Sends."""
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        """The head of the next answer."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def reply(self, method: bytes = b"GET") -> Reply:
        """The next answer, read by h11."""
        return await read_reply(self.reader, method)

    async def rest(self) -> bytes:
        """All that comes until the end; ConnectionResetError where that is a reset."""
        return await self.reader.read(-1)


class Reply:
    """An answer: `interim` are the statuses before it, `ended` whether h11 found it whole."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.interim: list[int] = []
        self.trailers: list[tuple[bytes, bytes]] = []
        self.keeps = False

    def header(self, name: bytes) -> bytes | None:
        """The values of a header, joined."""
        values = [value for key, value in self.headers if key == name]
        return b", ".join(values) if values else None


async def read_reply(reader: asyncio.StreamReader, method: bytes = b"GET") -> Reply:
    """Reads one answer with h11, an independent reader of HTTP/1. Raises h11.RemoteProtocolError for one that
    is not whole. What came behind it stays in the reader."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    reply = Reply()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(1 << 16))
        elif isinstance(event, h11.InformationalResponse):
            reply.interim.append(event.status_code)
        elif isinstance(event, h11.Response):
            reply.status = event.status_code
            reply.headers = list(event.headers)
        elif isinstance(event, h11.Data):
            reply.body += event.data
        elif isinstance(event, h11.EndOfMessage):
            reply.trailers = list(event.headers)
            reply.keeps = connection.their_state is not h11.MUST_CLOSE
            rest = connection.trailing_data[0]
            if rest:
                reader._buffer[0:0] = rest  # type: ignore[attr-defined]
            return reply
        else:
            raise AssertionError(event)


class Rig:
    """A proxy with one pool of these backends; `changes` are for `Route`, `Pool` or `L7Config`."""

    def __init__(
        self,
        *backends: Backend,
        route: Mapping[str, Any] | None = None,
        pool: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        listener: Mapping[str, Any] | None = None,
        members: tuple[BackendSettings, ...] = (),
        context: ssl.SSLContext | None = None,
        backend_context: ssl.SSLContext | None = None,
        table: SessionTable | None = None,
    ) -> None:
        self._directory = TemporaryDirectory()
        self.log_path = Path(self._directory.name) / "access.log"
        members = members or tuple(
            BackendSettings(BackendAddress(LOCALHOST, backend.port)) for backend in backends
        )
        self.config = L7Config(
            listeners=(Listener("web", ((LOCALHOST, 0),), **(listener or {})),),
            routes=(replace(Route("all", EVERYTHING, (Share("p"),)), **(route or {})),),
            pools=(PoolSettings("p", members, **(pool or {})),),
            access_log=LogSettings(self.log_path, LogFormat.JSON),
        )
        self.config = replace(self.config, **(config or {}))
        self._table = table
        self._contexts = {"web": context} if context else {}
        self._backend_contexts = {"p": backend_context} if backend_context else {}

    async def __aenter__(self) -> Self:
        config = self.config
        self.layout = Layout(config, [rule.name for rule in RULES])
        self.counters = self.layout.counters(1)
        self.pools = {
            pool.name: Pool(pool, b"0123456789abcdef", Random(1), table=self._table) for pool in config.pools
        }
        parts = Parts(
            config,
            Router(config.routes),
            self.pools,
            self.layout,
            self.counters.row(0),
            self._contexts,
            self._backend_contexts,
            read_pages(config.error_pages),
        )
        assert config.access_log is not None
        self.log = AccessLog(config.access_log)
        self.proxy = Proxy(parts, self.log)
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.sock.getsockname()[1]
        await self.proxy.serve("web", self.sock)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.proxy.close()
        self.sock.close()
        # What was closed is told so in the next turns of the loop.
        while self.proxy.describe()["connections"]:
            await asyncio.sleep(0)
        self._directory.cleanup()

    @property
    def pool(self) -> Pool:
        """The one that was made for the backends."""
        return self.pools["p"]

    def count(self, name: str) -> int:
        """The sum of all counters whose name is this or begins with it and a label."""
        totals = self.counters.totals()
        return sum(
            totals[number]
            for number, column in enumerate(self.layout.columns)
            if column.name == name or column.name.startswith(name + "{")
        )

    def ends(self) -> dict[str, int]:
        """How requests ended, by reason; only those that happened."""
        counts = {}
        for number, column in enumerate(self.layout.columns):
            if column.metric == "ends_total" and self.counters.totals()[number]:
                counts[column.labels[0][1]] = self.counters.totals()[number]
        return counts

    def lines(self) -> list[dict[str, Any]]:
        """The access log."""
        self.log.flush()
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]

    async def connect(self, **more: Any) -> Client:
        """A connection to the proxy."""
        return Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20, **more))

    async def ask(self, request: bytes, method: bytes = b"GET") -> Reply:
        """One request on a connection of its own."""
        async with await self.connect() as client:
            await client.send(request)
            return await client.reply(method)


def get(path: bytes = b"/", *headers: bytes) -> bytes:
    """A request without body."""
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"GET %s HTTP/1.1\r\nHost: example.com\r\n%s\r\n" % (path, lines)


def post(body: bytes, *headers: bytes, path: bytes = b"/") -> bytes:
    """A request with a body of known length."""
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"POST %s HTTP/1.1\r\nHost: example.com\r\nContent-Length: %d\r\n%s\r\n%s" % (
        path,
        len(body),
        lines,
        body,
    )
