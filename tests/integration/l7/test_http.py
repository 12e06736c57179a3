"""Requests through the proxy: kept connections on both sides, framings, order."""

from __future__ import annotations

import asyncio

import pytest

from l7.model import Respond
from tests.support.proxying import Backend, Exchange, Rig, answer, get, ok, post, proxied


@proxied
async def test_many_requests_go_through_one_connection_on_either_side():
    async with Backend(answer(ok(b"hello"))) as backend, Rig(backend) as rig:
        async with await rig.connect() as client:
            for _ in range(5):
                await client.send(get(b"/a?b=c", b"X-Mine: yes"))
                reply = await client.reply()
                assert (reply.status, reply.body, reply.keeps) == (200, b"hello", True)
        assert len(backend.connections) == 1
        first = backend.received[0].split(b"\r\n\r\n")[0]
        assert first.startswith(b"GET /a?b=c HTTP/1.1\r\nHost: example.com\r\nX-Mine: yes\r\n")
        assert b"\r\nX-Forwarded-For: 127.0.0.1\r\n" in first
        assert b"onnection" not in first
        assert rig.count("route_requests_total") == rig.count("backend_requests_total") == 5
        assert rig.count("backend_connects_total") == 1
        assert rig.count("backend_reused_total") == 4
        assert rig.ends() == {"done": 5}


@proxied
async def test_connections_of_several_clients_share_those_to_the_backend():
    async with Backend(answer(ok())) as backend, Rig(backend) as rig:
        for _ in range(10):
            assert (await rig.ask(get())).body == b"ok"
        assert len(backend.connections) == 1


@proxied
async def test_pipelined_requests_are_answered_in_order_and_sent_one_at_a_time():
    async def handle(exchange: Exchange) -> None:
        while True:
            head = await exchange.head()
            # Nothing of the next request may be here before this one is answered.
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(exchange.reader.read(1), 0.02)
            await exchange.send(ok(head.split()[1]))

    async with Backend(handle) as backend, Rig(backend) as rig, await rig.connect() as client:
        await client.send(b"".join(get(b"/%d" % number) for number in range(6)))
        assert [(await client.reply()).body for _ in range(6)] == [b"/%d" % number for number in range(6)]


@proxied
async def test_thousands_of_pipelined_requests_that_need_no_backend_do_not_pile_up():
    fixed = {"shares": (), "respond": Respond(200, b"fixed")}
    async with Rig(route=fixed) as rig, await rig.connect() as client:
        sending = asyncio.create_task(client.send(get() * 5000))
        for _ in range(5000):
            assert (await client.reply()).body == b"fixed"
        await sending
        assert rig.ends() == {"own": 5000}


@pytest.mark.parametrize(
    ("answer_", "method", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET", b""),
        (b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 500\r\n\r\n', b"GET", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", b"HEAD", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"HEAD", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"GET", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"GET", b"abc"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            b"GET",
            b"abcde",
        ),
    ],
)
@proxied
async def test_answers_end_where_their_kind_says(answer_, method, body):
    async with Backend(answer(answer_)) as backend, Rig(backend) as rig, await rig.connect() as client:
        for _ in range(2):
            await client.send(method + get()[3:])
            reply = await client.reply(method)
            assert (reply.body, reply.keeps) == (body, True)
        assert len(backend.connections) == 1


@proxied
async def test_an_answer_until_the_close_becomes_chunks():
    async def handle(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(b"HTTP/1.1 200 OK\r\n\r\nuntil ")
        await exchange.send(b"the end")

    async with Backend(handle) as backend, Rig(backend) as rig, await rig.connect() as client:
        for _ in range(2):
            await client.send(get())
            reply = await client.reply()
            assert (reply.body, reply.keeps) == (b"until the end", True)
            assert reply.header(b"transfer-encoding") == b"chunked"
        assert len(backend.connections) == 2


@pytest.mark.parametrize("keep", [True, False])
@proxied
async def test_clients_of_http_1_0_are_given_no_chunks(keep):
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    async with Backend(answer(chunked)) as backend, Rig(backend) as rig, await rig.connect() as client:
        await client.send(b"GET / HTTP/1.0\r\n" + (b"Connection: keep-alive\r\n" if keep else b"") + b"\r\n")
        head, body = (await client.rest()).split(b"\r\n\r\n")
        assert b"chunked" not in head
        assert b"\r\nConnection: close" in head
        assert body == b"abc"
        assert b"\r\nHost: 127.0.0.1:" in backend.received[0]


@proxied
async def test_clients_of_http_1_0_may_keep_their_connection():
    async with Backend(answer(ok())) as backend, Rig(backend) as rig, await rig.connect() as client:
        for _ in range(2):
            await client.send(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
            assert b"\r\nConnection: keep-alive\r\n" in await client.head()
            assert await client.reader.readexactly(2) == b"ok"
        assert len(backend.connections) == 1


@proxied
async def test_bodies_go_on_as_they_come():
    async with Backend(answer(ok())) as backend, Rig(backend) as rig, await rig.connect() as client:
        await client.send(post(b"x" * 70_000))
        assert (await client.reply()).status == 200
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await client.send(b"1;ext=1\r\nd\r\n0\r\nX-Sum: 4\r\n\r\n" + get())
        backend.connections[0].received.clear()
        with pytest.raises(TimeoutError):
            # The backend of this test waits for an end without trailers.
            await asyncio.wait_for(client.reply(), 0.2)
        sent = bytes(backend.connections[0].received) + bytes(backend.connections[0].reader._buffer)
        body = sent.partition(b"\r\n\r\n")[2]
        assert body in (
            b"3\r\nabc\r\n1\r\nd\r\n0\r\nX-Sum: 4\r\n\r\n",
            b"4\r\nabcd\r\n0\r\nX-Sum: 4\r\n\r\n",
        )


@proxied
async def test_trailers_of_answers_go_on_and_those_that_would_change_the_message_do_not():
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"3\r\nabc\r\n0\r\nX-Sum: 9\r\nContent-Length: 7\r\n\r\n"
    )
    async with Backend(answer(chunked)) as backend, Rig(backend) as rig:
        assert (await rig.ask(get())).trailers == [(b"x-sum", b"9")]


@proxied
async def test_the_client_may_ask_for_the_connection_to_be_closed():
    async with Backend(answer(ok())) as backend, Rig(backend) as rig, await rig.connect() as client:
        await client.send(get(b"/", b"Connection: close") + get(b"/never"))
        reply = await client.reply()
        assert (reply.body, reply.keeps) == (b"ok", False)
        assert await client.rest() == b""
        assert len(backend.received) == 1
        assert b"never" not in backend.received[0]


@proxied
async def test_a_client_that_has_closed_its_half_gets_its_answers():
    async with Backend(answer(ok())) as backend, Rig(backend) as rig, await rig.connect() as client:
        await client.send(get() + get())
        client.writer.write_eof()
        assert [(await client.reply()).body for _ in range(2)] == [b"ok", b"ok"]
        assert await client.rest() == b""


@proxied
async def test_the_log_says_what_happened():
    async with Backend(answer(ok(b"12345"))) as backend, Rig(backend) as rig:
        await rig.ask(post(b"abc", b'User-Agent: a"\xffb', path=b"/p?q=1"))
        (line,) = rig.lines()
        assert (
            line.items()
            >= {
                "client": "127.0.0.1",
                "listener": "web",
                "method": "POST",
                "target": "/p?q=1",
                "host": "example.com",
                "status": 200,
                "bytes_in": 3,
                "bytes_out": 5,
                "route": "all",
                "pool": "p",
                "backend": f"127.0.0.1:{backend.port}",
                "end": "done",
                "tries": 1,
                "user_agent": 'a"\xffb',
            }.items()
        )
        assert 0 < line["connect_s"] < line["first_byte_s"] <= line["total_s"] < 5
        assert len(line["request_id"]) == 32
