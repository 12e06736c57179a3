"""Bodies and answers that come or go a little at a time: the time between two bytes does not bound those."""

from __future__ import annotations

import asyncio
import socket

import h11
import pytest

from l7.model import Timeouts
from tests.support.proxying import Backend, Exchange, Rig, answer, get, ok, post, proxied

UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
PIECE_S = 0.05


def times(**values: float | None) -> dict[str, object]:
    return {"timeouts": Timeouts(**values)}  # type: ignore[arg-type]


async def trickle(writer: asyncio.StreamWriter, piece: bytes, for_s: float) -> None:
    """Sends a piece twenty times a second."""
    end_s = asyncio.get_running_loop().time() + for_s
    while asyncio.get_running_loop().time() < end_s:
        writer.write(piece)
        await asyncio.sleep(PIECE_S)


@pytest.mark.parametrize(
    "head", [UPLOAD, UPLOAD.replace(b"Content-Length: 100000", b"Transfer-Encoding: chunked")]
)
@proxied
async def test_a_body_that_trickles_is_a_408(head):
    piece = b"x" if b"Length" in head else b"1\r\nx\r\n"
    async with Backend(answer(ok())) as backend, Rig(backend, route=times(body_s=0.5)) as rig:
        async with await rig.connect() as client:
            await client.send(head)
            sending = asyncio.create_task(trickle(client.writer, piece, 20))
            assert (await client.reply()).status == 408
            sending.cancel()
        assert rig.ends() == {"body-too-slow": 1}
        assert rig.pool.servers[0].judge.failures == 0


@pytest.mark.parametrize(("piece", "rate"), [(b"x" * 100, 240), (b"x", None)])
@proxied
async def test_a_body_that_is_quick_enough_may_take_many_periods(piece, rate):
    route = times(body_s=0.5, body_rate=rate)
    async with (
        Backend(answer(ok())) as backend,
        Rig(backend, route=route) as rig,
        await rig.connect() as client,
    ):
        await client.send(UPLOAD)
        await trickle(client.writer, piece, 2.5)
        assert rig.ends() == {}


@proxied
async def test_a_client_is_not_slow_while_the_backend_takes_nothing():
    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        exchange.writer.transport.pause_reading()
        await asyncio.sleep(2)
        exchange.writer.transport.resume_reading()
        await exchange.exactly(30_000_000)
        await exchange.send(ok())

    route = times(body_s=0.5) | {"max_body": None}
    async with Backend(handle) as backend, Rig(backend, route=route) as rig, await rig.connect() as client:
        client.writer.write(post(b"x" * 30_000_000))
        assert (await client.reply()).status == 200
        assert rig.ends() == {"done": 1}


LARGE = 8_000_000


async def read_slowly(rig: Rig, bytes_per_s: int) -> int:
    """Asks for a large answer and takes it slowly; the bytes of it that came. ConnectionResetError."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", rig.port))
        await loop.sock_sendall(sock, get(b"/", b"Connection: close"))
        taken = 0
        while data := await loop.sock_recv(sock, int(bytes_per_s * PIECE_S)):
            taken += len(data)
            await asyncio.sleep(PIECE_S)
        return taken


@proxied
async def test_a_client_that_takes_an_answer_in_sips_is_reset():
    route = times(write_s=0.5, write_rate=1_000_000)
    async with Backend(answer(ok(b"x" * LARGE))) as backend, Rig(backend, route=route) as rig:
        with pytest.raises(ConnectionResetError):
            await read_slowly(rig, 100_000)
        assert rig.ends() == {"write-too-slow": 1}
        assert rig.pool.servers[0].active == 0


@proxied
async def test_a_slow_client_takes_what_the_kernel_has_for_it():
    # For longer than the time-out nothing goes into the kernel, which has megabytes for such a client.
    route = times(write_s=0.5, write_rate=240)
    async with Backend(answer(ok(b"x" * LARGE))) as backend, Rig(backend, route=route) as rig:
        assert await read_slowly(rig, 1_000_000) > LARGE
        assert rig.ends() == {"done": 1}


@pytest.mark.parametrize(("rate", "end"), [(240, "backend-too-slow"), (None, "done")])
@proxied
async def test_an_answer_may_trickle_unless_it_must_not(rate, end):
    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await trickle(exchange.writer, b":", 2.5)

    async with Backend(handle) as backend, Rig(backend, route=times(read_s=0.5, read_rate=rate)) as rig:
        if rate is None:
            assert set((await rig.ask(get())).body) == set(b":")
        else:
            with pytest.raises(h11.RemoteProtocolError):
                await rig.ask(get())
        assert rig.ends() == {end: 1}
        assert rig.count("backend_timeouts_total") == (rate is not None)


@proxied
async def test_an_answer_that_stops_has_not_trickled():
    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await exchange.read()

    async with Backend(handle) as backend, Rig(backend, route=times(read_s=1.0, read_rate=240)) as rig:
        with pytest.raises(h11.RemoteProtocolError):
            await rig.ask(get())
        assert rig.ends() == {"backend-timeout": 1}
