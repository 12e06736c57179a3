"""The end of a worker, which breaks nothing that is under way; and what may change while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import h11
import pytest
import trustme

from l7.model import Backend as BackendSettings
from l7.model import BackendAddress
from l7.proxy.backlog import refuse_new, shorten, waiting
from tests.support.proxying import LOCALHOST, Backend, Client, Exchange, Rig, answer, get, ok, post, proxied

NETWORK = (ip_network("127.0.0.0/8"),)


@proxied
async def test_what_is_under_way_is_finished_and_the_client_told_to_go():
    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        arrived.set()
        await go_on.wait()
        await exchange.send(ok(b"late"))

    arrived, go_on = asyncio.Event(), asyncio.Event()
    async with Backend(handle) as backend, Rig(backend) as rig, await rig.connect() as client:
        await client.send(get())
        await arrived.wait()
        finishing = asyncio.create_task(rig.proxy.finish(None))
        await asyncio.sleep(0)
        go_on.set()
        reply = await client.reply()
        assert (reply.body, reply.keeps) == (b"late", False)
        assert await client.rest() == b""
        await finishing


@proxied
async def test_a_kept_connection_may_still_bring_a_request_that_was_on_its_way():
    async with Backend(answer(ok())) as backend, Rig(backend) as rig, await rig.connect() as client:
        await client.send(get())
        assert (await client.reply()).keeps
        finishing = asyncio.create_task(rig.proxy.finish(None))
        await client.send(get())
        reply = await client.reply()
        assert (reply.status, reply.keeps) == (200, False)
        await finishing


@proxied
async def test_kept_connections_without_requests_do_not_hold_up_the_end():
    async with Backend(answer(ok())) as backend, Rig(backend) as rig:
        async with await rig.connect() as used, await rig.connect() as fresh:
            await used.send(get())
            await used.reply()
            await rig.proxy.finish(None)
            assert await used.rest() == await fresh.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await rig.connect()


def connect_unseen(rig: Rig, count: int) -> list[socket.socket]:
    """Connections that the proxy has not accepted yet, each with a request: its event loop does not turn."""
    made = [socket.create_connection(("127.0.0.1", rig.port)) for _ in range(count)]
    for sock in made:
        sock.sendall(get())
    return made


async def replies(made: list[socket.socket]) -> list[bytes]:
    """What each is answered, to the end of the connection."""
    clients = [Client(*await asyncio.open_connection(sock=sock)) for sock in made]
    answers = list(await asyncio.gather(*(client.rest() for client in clients)))
    for client in clients:
        await client.__aexit__()
    return answers


@proxied
async def test_a_request_that_came_while_the_worker_was_held_up_is_answered():
    """Timers that are late then see what is due before the request is read."""

    class HoldUp(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            os.write(client.writer.get_extra_info("socket").fileno(), get())
            time.sleep(2)  # nothing is waited for: the event loop stands, and then looks at its timers first

    wakes, wake = socket.socketpair()
    held, _ = await asyncio.get_running_loop().create_connection(HoldUp, sock=wakes)
    async with Backend(answer(ok())) as backend, Rig(backend) as rig, await rig.connect() as client:
        await client.send(get())
        assert (await client.reply()).keeps
        finishing = asyncio.create_task(rig.proxy.finish(None))
        await asyncio.sleep(0)
        with wake:
            wake.send(b"!")
            reply = await client.reply()
        assert (reply.status, reply.keeps) == (200, False)
        await finishing
    held.close()


@pytest.mark.parametrize("give_up", [refuse_new, shorten])
@pytest.mark.parametrize("most", [None, 2])
@proxied
async def test_who_waits_in_a_socket_that_is_given_up_is_served(most, give_up):
    async with Backend(answer(ok())) as backend, Rig(backend, listener={"max_connections": most}) as rig:
        made = connect_unseen(rig, 20)
        assert waiting(rig.sock) == 20
        give_up(rig.sock)
        asked = asyncio.create_task(replies(made))
        await rig.proxy.finish(None)
        assert [reply.split(b"\r\n")[0] for reply in await asked] == [b"HTTP/1.1 200 OK"] * 20
        with pytest.raises(ConnectionRefusedError):
            await rig.connect()


@proxied
async def test_who_waits_in_a_socket_that_others_serve_is_left_to_them():
    async with Backend(answer(ok())) as backend, Rig(backend) as rig:
        with rig.sock.dup() as other:
            made = connect_unseen(rig, 3)
            await rig.proxy.finish(None)
            assert waiting(other) == 3
            for sock in made:
                sock.close()


@proxied
async def test_a_handshake_that_is_under_way_is_waited_for():
    ca = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    ca.issue_cert("example.com").configure_cert(server)
    ca.configure_trust(client)
    async with Backend(answer(ok())) as backend, Rig(backend, context=server) as rig:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client.wrap_bio(incoming, outgoing, server_hostname="example.com")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        async with await rig.connect() as raw:
            await raw.send(hello[:50])
            while not rig.count("listener_connections"):
                await asyncio.sleep(0)
            finishing = asyncio.create_task(rig.proxy.finish(None))
            await asyncio.sleep(0)
            assert not finishing.done()
            await raw.send(hello[50:])

            async def carry(step: Callable[[], Any]) -> Any:
                while True:
                    with contextlib.suppress(ssl.SSLWantReadError):
                        return step()
                    await raw.send(outgoing.read())
                    incoming.write(await raw.reader.read(1 << 16))

            await carry(tls.do_handshake)
            tls.write(get())
            assert await carry(lambda: tls.read(15)) == b"HTTP/1.1 200 OK"
        await finishing


@proxied
async def test_a_connection_that_is_refused_while_finishing_holds_up_nothing():
    async with (
        Backend(answer(ok())) as backend,
        Rig(backend, listener={"accept_proxy": NETWORK}) as rig,
        await rig.connect() as client,
    ):
        while not rig.proxy.describe()["admitting"]:
            await asyncio.sleep(0)
        finishing = asyncio.create_task(rig.proxy.finish(None))
        await asyncio.sleep(0)
        await client.send(b"no PROXY header\r\n\r\n")
        await finishing


@proxied
async def test_what_does_not_end_in_time_is_cut_off():
    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await exchange.read()

    async with Backend(handle) as backend, Rig(backend) as rig, await rig.connect() as client:
        await client.send(get())
        await client.reader.readuntil(b"abc")
        await rig.proxy.finish(0.05)
        with pytest.raises((h11.RemoteProtocolError, ConnectionResetError)):
            await client.reply()
        assert rig.ends() == {"shutdown": 1}


@proxied
async def test_a_full_listener_lets_connections_wait():
    two = {"max_connections": 2}
    async with (
        Backend(answer(ok())) as backend,
        Rig(backend, listener=two) as rig,
        await rig.connect() as first,
        await rig.connect() as second,
    ):
        for client in (first, second):
            await client.send(get())
            assert (await client.reply()).status == 200
        async with await rig.connect() as third:
            await third.send(get())
            waiting = asyncio.create_task(third.reply())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            assert rig.proxy.describe()["connections"] == 2
            await first.__aexit__()
            assert (await waiting).status == 200


@proxied
async def test_backends_change_while_requests_flow():
    async with Backend(answer(ok(b"one"))) as one, Backend(answer(ok(b"two"))) as two, Rig(one) as rig:
        assert (await rig.ask(get())).body == b"one"
        name = f"127.0.0.1:{two.port}"
        names = {"pool": "p", "backend": name}
        added = {"do": "add", **names, "host": "127.0.0.1", "port": two.port, "is_name": False}
        rig.proxy.apply({**added, "weight": 1, "spare": 0})
        assert {(await rig.ask(get())).body for _ in range(4)} == {b"one", b"two"}
        first = {"pool": "p", "backend": f"127.0.0.1:{one.port}"}
        rig.proxy.apply({"do": "state", **first, "state": "draining", "weight": 1, "why": "test"})
        assert {(await rig.ask(get())).body for _ in range(4)} == {b"two"}
        rig.proxy.apply({"do": "state", **first, "state": "up", "weight": 1, "why": ""})
        rig.proxy.apply({"do": "remove", **names})
        assert {(await rig.ask(get())).body for _ in range(4)} == {b"one"}
        backends = rig.proxy.apply({"do": "ask", "id": 1, "what": "describe"})["pools"]["p"]["backends"]
        assert list(backends) == [first["backend"]]
        assert backends[first["backend"]]["active"] == 0


@proxied
async def test_a_name_is_asked_at_the_addresses_it_has_now():
    async with Backend(answer(ok(b"one"))) as one, Backend(answer(ok(b"two"))) as two:
        member = BackendSettings(BackendAddress("backend.test", one.port))
        async with Rig(members=(member,)) as rig:
            assert (await rig.ask(get())).status == 503
            for backend, body in ((one, b"one"), (two, b"two")):
                endpoints = {
                    "pool": "p",
                    "backend": member.name,
                    "addresses": [[str(LOCALHOST), backend.port]],
                }
                rig.proxy.apply({"do": "endpoints", **endpoints})
                assert {(await rig.ask(get())).body for _ in range(3)} == {body}


@proxied
async def test_messages_about_what_is_gone_do_nothing():
    async with Backend(answer(ok())) as backend, Rig(backend) as rig:
        for message in (
            {"do": "state", "pool": "nowhere", "backend": "x", "state": "up", "weight": 1},
            {"do": "remove", "pool": "p", "backend": "x"},
            {"do": "add", "pool": "nowhere", "backend": "x"},
        ):
            assert rig.proxy.apply(message) is None
        assert (await rig.ask(post(b"x"))).status == 200
