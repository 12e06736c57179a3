"""Upgrades, 1xx, Expect."""

from __future__ import annotations

import asyncio

import pytest
import websockets.asyncio.client
import websockets.asyncio.server

from l7.model import Backend as BackendSettings
from l7.model import BackendAddress, Timeouts
from tests.support.proxying import LOCALHOST, Backend, Exchange, Rig, answer, get, ok, proxied

UPGRADE = (b"Connection: Upgrade", b"Upgrade: websocket")
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Its: own\r\n\r\n"
)


@proxied
async def test_websockets_talk_through_the_proxy():
    async def echo(socket: websockets.asyncio.server.ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    async with websockets.asyncio.server.serve(echo, "127.0.0.1", 0, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        async with Rig(members=(BackendSettings(BackendAddress(LOCALHOST, port)),)) as rig:
            url = f"ws://127.0.0.1:{rig.port}/chat"
            async with websockets.asyncio.client.connect(url, max_size=None, compression=None) as socket:
                for message in ("hello", b"\0" * 3_000_000, "bye"):
                    await socket.send(message)
                    assert await socket.recv() == message
                assert rig.pool.servers[0].active == 1
                assert rig.count("worker_tunnels") == 1
            while rig.count("worker_tunnels"):
                await asyncio.sleep(0)
            (line,) = rig.lines()
            assert (line["status"], line["end"]) == (101, "done")
            assert line["bytes_in"] > 3_000_000 < line["bytes_out"]
            assert rig.pool.servers[0].active == 0


@proxied
async def test_bytes_around_the_switch_belong_to_the_new_protocol():
    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(SWITCHED + b"server first")
        assert await exchange.exactly(12) == b"client first"
        await exchange.send(b"done")

    async with Backend(handle) as backend, Rig(backend) as rig, await rig.connect() as client:
        await client.send(get(b"/", *UPGRADE) + b"client first")
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"\r\nX-Its: own\r\n" in head
        assert head.lower().count(b"\r\nconnection: upgrade\r\n") == 1
        assert await client.rest() == b"server firstdone"


@proxied
async def test_each_half_of_an_upgraded_connection_ends_by_itself():
    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(SWITCHED)
        while await exchange.read():
            pass
        await exchange.send(b"after your end")

    async with Backend(handle) as backend, Rig(backend) as rig, await rig.connect() as client:
        await client.send(get(b"/", *UPGRADE))
        await client.head()
        await client.send(b"data")
        client.writer.write_eof()
        assert await client.rest() == b"after your end"
        assert backend.received[0].endswith(b"data")


@proxied
async def test_an_upgraded_connection_without_traffic_is_closed():
    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(SWITCHED)
        await exchange.read()

    soon = {"timeouts": Timeouts(upgraded_s=0.1)}
    async with Backend(handle) as backend, Rig(backend, route=soon) as rig, await rig.connect() as client:
        await client.send(get(b"/", *UPGRADE))
        await client.head()
        assert await client.rest() == b""
        while not rig.ends():
            await asyncio.sleep(0)
        assert rig.ends() == {"tunnel-timeout": 1}


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket2", b"TLS/1.0", b"websocket, h2c"])
@proxied
async def test_other_protocols_are_not_switched_to(protocol):
    async with Backend(answer(ok())) as backend, Rig(backend) as rig:
        assert (await rig.ask(get(b"/", b"Connection: Upgrade", b"Upgrade: " + protocol))).status == 200
        assert b"pgrade" not in backend.received[0]


@proxied
async def test_a_refused_upgrade_is_an_ordinary_answer():
    refused = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    async with Backend(answer(refused)) as backend, Rig(backend) as rig, await rig.connect() as client:
        for _ in range(2):
            await client.send(get(b"/", *UPGRADE))
            reply = await client.reply()
            assert (reply.status, reply.keeps) == (403, True)


@proxied
async def test_a_switch_to_something_else_than_was_asked_for_is_a_502():
    other = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    async with Backend(answer(other)) as backend, Rig(backend) as rig:
        assert (await rig.ask(get(b"/", *UPGRADE))).status == 502


@proxied
async def test_an_upgraded_connection_outlives_the_end_of_the_worker():
    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(SWITCHED)
        while data := await exchange.read():
            await exchange.send(data)

    async with Backend(handle) as backend, Rig(backend) as rig, await rig.connect() as client:
        await client.send(get(b"/", *UPGRADE))
        await client.head()
        finishing = asyncio.create_task(rig.proxy.finish(None))
        await asyncio.sleep(0)
        await client.send(b"still there")
        assert await client.reader.readexactly(11) == b"still there"
        assert not finishing.done()
        client.writer.write_eof()
        assert await client.rest() == b""
        await finishing


# -- 1xx


@proxied
async def test_a_client_that_expects_100_hears_it_from_the_backend():
    async def handle(exchange: Exchange) -> None:
        head = await exchange.head()
        assert b"\r\nExpect: 100-continue\r\n" in head
        assert not exchange.reader._buffer
        await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await exchange.body(head)
        await exchange.send(ok())

    async with Backend(handle) as backend, Rig(backend) as rig, await rig.connect() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert (await client.head()).startswith(b"HTTP/1.1 100 ")
        await client.send(b"body")
        assert (await client.reply()).status == 200


@proxied
async def test_a_final_answer_in_place_of_100_ends_the_connection():
    refused = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"

    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(refused)
        await exchange.read()

    async with Backend(handle) as backend, Rig(backend) as rig, await rig.connect() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        reply = await client.reply()
        assert (reply.status, reply.keeps) == (401, False)
        # What the client sends now cannot be told from a new request: it is none.
        await client.send(get(b"/smuggled"))
        client.writer.write_eof()
        assert await client.rest() == b""
        assert b"smuggled" not in backend.received[0]


@proxied
async def test_backends_of_http_1_0_are_not_waited_for_to_say_100():
    async def handle(exchange: Exchange) -> None:
        head = await exchange.head()
        assert b"xpect" not in head or exchange.number == 0
        await exchange.body(head)
        await exchange.send(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with Backend(handle) as backend, Rig(backend) as rig, await rig.connect() as client:
        await client.send(get())
        await client.reply()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert (await client.head()).startswith(b"HTTP/1.1 100 ")
        await client.send(b"body")
        assert (await client.reply()).status == 200


@proxied
async def test_early_hints_reach_clients_that_know_them():
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    async with Backend(answer(hints + ok())) as backend, Rig(backend) as rig:
        reply = await rig.ask(get())
        assert (reply.interim, reply.status) == ([103], 200)
        async with await rig.connect() as client:
            await client.send(b"GET / HTTP/1.0\r\n\r\n")
            assert (await client.rest()).startswith(b"HTTP/1.1 200 OK\r\n")
