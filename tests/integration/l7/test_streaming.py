"""Large bodies both ways: whole, in order, and never much of them in memory."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from l7.model import Certificate, ListenerTls
from tests.support.proxying import Backend, Exchange, Rig, ok, proxied

SIZE = 100_000_000
PIECE = bytes(range(256)) * 1000
MOST_GROWTH = 24_000_000
"""Bytes that the process may grow by: buffers of four sockets and what Python's allocator keeps."""


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


class Growth:
    """The largest growth of this process since it was made, as far as `look` was called in time."""

    def __init__(self) -> None:
        self._before = self._most = resident()

    def look(self) -> None:
        self._most = max(self._most, resident())

    @property
    def most(self) -> int:
        return self._most - self._before


async def send_all(send, frame=lambda piece: piece) -> None:
    sent = 0
    while sent < SIZE:
        piece = PIECE[: min(len(PIECE), SIZE - sent)]
        await send(frame(piece))
        sent += len(piece)


class Checker:
    """Takes a body bit by bit and compares it with what was sent."""

    def __init__(self) -> None:
        self.size = 0

    def take(self, data: bytes) -> None:
        at = self.size % len(PIECE)
        expected = (PIECE + PIECE * (1 + len(data) // len(PIECE)))[at : at + len(data)]
        assert data == expected
        self.size += len(data)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["length", "close", "tls"])
@proxied
async def test_a_large_answer_reaches_a_slow_reader(how):
    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        line = b"" if how == "close" else b"Content-Length: %d\r\n" % SIZE
        await exchange.send(b"HTTP/1.1 200 OK\r\n" + line + b"\r\n")
        await send_all(exchange.send)

    more, listener, context = {}, {}, None
    if how == "tls":
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("a").configure_cert(context)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        more = {"ssl": trusting, "server_hostname": "a"}
        listener = {"tls": ListenerTls((Certificate(Path("unused")),))}
    async with (
        Backend(handle) as backend,
        Rig(backend, listener=listener, context=context) as rig,
        await rig.connect(**more) as client,
    ):
        growth, checker = Growth(), Checker()
        # Without chunks, so that the bytes that arrive are those of the body.
        await client.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        await client.head()
        while data := await client.reader.read(1 << 16):
            checker.take(data)
            growth.look()
            # A reader that is slower than the writer: its turn comes after everybody else's.
            await asyncio.sleep(0)
        assert checker.size == SIZE
        assert growth.most < MOST_GROWTH


@pytest.mark.slow
@pytest.mark.parametrize("how", ["length", "chunked"])
@proxied
async def test_a_large_request_reaches_a_slow_backend(how):
    checker = Checker()

    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        if how == "length":
            while checker.size < SIZE:
                checker.take(await exchange.reader.read(1 << 16))
                growth.look()
                await asyncio.sleep(0)
        else:
            while size := int(await exchange.reader.readuntil(b"\r\n"), 16):
                checker.take((await exchange.reader.readexactly(size + 2))[:-2])
                growth.look()
                await asyncio.sleep(0)
            await exchange.reader.readexactly(2)
        await exchange.send(ok())

    async with Backend(handle) as backend, Rig(backend, route={"max_body": None}) as rig:
        async with await rig.connect() as client:
            growth = Growth()
            if how == "length":
                await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % SIZE)
                await send_all(client.send)
            else:
                await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
                await send_all(client.send, lambda piece: b"%x\r\n%s\r\n" % (len(piece), piece))
                await client.send(b"0\r\n\r\n")
            assert (await client.reply()).status == 200
        assert checker.size == SIZE
        assert growth.most < MOST_GROWTH
        assert rig.lines()[0]["bytes_in"] == SIZE


@proxied
async def test_both_directions_flow_at_once():
    async def echo(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while size := int(await exchange.reader.readuntil(b"\r\n"), 16):
            data = (await exchange.reader.readexactly(size + 2))[:-2]
            await exchange.send(b"%x\r\n%s\r\n" % (size, data))
        await exchange.send(b"0\r\n\r\n")

    large = {"max_body": None}
    async with Backend(echo) as backend, Rig(backend, route=large) as rig, await rig.connect() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        head = None
        for number in range(50):
            piece = b"%d" % number * 1000
            await client.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            head = head or await client.head()
            got = b""
            while len(got) < len(piece):
                size = int(await client.reader.readuntil(b"\r\n"), 16)
                got += (await client.reader.readexactly(size + 2))[:-2]
            assert got == piece
        await client.send(b"0\r\n\r\n")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"0\r\n\r\n"
