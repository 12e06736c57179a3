"""Clients and backends that do as they please: nothing crashes, is mixed up or is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import random

import h11
import pytest

from l7.model import Retries, Timeouts
from tests.support.proxying import Backend, Client, Exchange, Rig, get, proxied

TIMES = Timeouts(
    header_s=0.3,
    body_s=0.3,
    write_s=0.3,
    idle_s=0.3,
    connect_s=0.3,
    read_s=0.3,
    total_s=2.0,
    upgraded_s=0.3,
    queue_s=0.3,
    backend_idle_s=0.3,
)
GAUGES = (
    *("worker_connections", "worker_tunnels", "listener_connections"),
    *("route_active", "backend_active", "pool_waiting"),
)
ODD_ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the close",
    b"HTTP/1.1 204 No Content\r\n\r\nunasked",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nzz\r\n",
    b"SSH-2.0-nothing\r\n",
    b"",
)


def make_backend(chance: random.Random):
    """Answers most requests with their path, others with nonsense, half an answer or silence."""

    async def handle(exchange: Exchange) -> None:
        while True:
            head = await exchange.head()
            path = head.split()[1]
            reads = chance.random() < 0.7
            if reads:
                await exchange.body(head)
            if chance.random() < 0.2:
                await exchange.send(chance.choice(ODD_ANSWERS))
                if chance.random() < 0.5:
                    exchange.reset()
                    return
                await asyncio.sleep(chance.random() * 0.5)
                return
            body = path * chance.choice((1, 10, 20_000))
            if chance.random() < 0.5:
                await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            else:
                await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for at in range(0, len(body), 50_000):
                    piece = body[at : at + 50_000]
                    await exchange.send(b"%x\r\n%s\r\n" % (len(piece), piece))
                await exchange.send(b"0\r\n\r\n")
            if not reads and b"GET " not in head:
                # It does not know where the next request begins.
                return

    return handle


async def misbehave(client: Client, path: bytes, chance: random.Random) -> None:
    """One conversation; a whole answer with status 200 must be the path's own."""
    body = b"x" * chance.choice((0, 1, 1000, 200_000))
    stream = chance.choice(
        (
            get(path),
            get(path) * 3,
            get(path, b"Connection: upgrade", b"Upgrade: websocket") + b"data of the tunnel",
            b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (path, len(body), body),
            b"PUT %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
            % (path, max(len(body), 1), body or b"y"),
            b"GET %s HTTP/1.0\r\n\r\n" % path,
            bytes(chance.randbytes(200)),
        )
    )
    end = chance.choice((len(stream), len(stream), chance.randrange(len(stream) + 1)))
    client.writer.write(stream[:end])
    what = chance.random()
    if what < 0.15:
        client.writer.transport.abort()
        return
    if what < 0.3:
        client.writer.write_eof()
    if what < 0.4:
        await asyncio.sleep(chance.random() * 0.2)
        return
    reply = await client.reply()
    if reply.status == 200 and reply.body.startswith(b"/"):
        assert reply.body == path * (len(reply.body) // len(path))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@proxied
async def test_nothing_is_left_behind(seed):
    chance = random.Random(seed)
    retries = Retries(attempts=3, budget=1.0)
    async with Backend(make_backend(chance)) as one, Backend(make_backend(chance)) as two:
        rig = Rig(
            one,
            two,
            route={"timeouts": TIMES, "retries": retries},
            pool={"passive": None, "max_idle": 5},
            config={"timeouts": TIMES},
        )
        async with rig:

            async def converse(number: int) -> None:
                for turn in range(25):
                    async with await rig.connect() as client:
                        with contextlib.suppress(
                            h11.RemoteProtocolError, ConnectionError, asyncio.IncompleteReadError
                        ):
                            # An upgraded connection says no more, and what is no HTTP is no answer.
                            async with asyncio.timeout(3):
                                await misbehave(client, b"/%d.%d/" % (number, turn), chance)

            await asyncio.gather(*(converse(number) for number in range(20)), return_exceptions=False)
            await rig.proxy.finish(3.0)
            assert {name: rig.count(name) for name in GAUGES} == dict.fromkeys(GAUGES, 0)
            assert [server.active for server in rig.pool.servers] == [0, 0]
            assert sum(rig.ends().values()) == len(rig.lines())
            assert "error" not in rig.ends()
            assert rig.ends()["done"] > 50
