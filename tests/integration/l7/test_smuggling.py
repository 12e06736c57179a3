"""Never two requests out of one, never a byte that the rules forbid: backends that remember every byte."""

from __future__ import annotations

import asyncio

import h11
import pytest

from tests.support.proxying import Backend, Exchange, Rig, answer, get, ok, proxied

HOST = b"Host: a\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST

REFUSED = {
    "length and chunked": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 4\r\nContent-Length: 40\r\n\r\nabcd",
    "length list": POST + b"Content-Length: 4, 40\r\n\r\nabcd",
    "signed length": POST + b"Content-Length: +4\r\n\r\nabcd",
    "negative length": POST + b"Content-Length: -4\r\n\r\nabcd",
    "hexadecimal length": POST + b"Content-Length: 0x4\r\n\r\nabcd",
    "huge length": POST + b"Content-Length: 99999999999999999999\r\n\r\nabcd",
    "unknown coding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "hidden coding": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "coding twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "coding in two lines": POST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "coding in HTTP/1.0": b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before the colon": POST + b"Content-Length : 4\r\n\r\nabcd",
    "folded line": POST + b"X: a\r\n Content-Length: 4\r\n\r\nabcd",
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare LF in a head": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\nY: b\r\n\r\n",
    "bare CR in a value": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\rY: b\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n",
    "control in a name": b"GET / HTTP/1.1\r\n" + HOST + b"X\x01: a\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\n" + HOST + b"Host: b\r\n\r\n",
    "another authority": b"GET http://b/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "connection names host": b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Host\r\n\r\n",
    "connection names length": POST + b"Content-Length: 4\r\nConnection: Content-Length\r\n\r\nabcd",
    "space in the target": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "no version": b"GET /\r\n\r\n",
    "HTTP/0.9 in disguise": b"GET / HTTP/0.9\r\n" + HOST + b"\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    "TRACE": b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n",
}  # fmt: skip

CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BAD_CHUNKS = {
    "size": b"x\r\nabcd\r\n0\r\n\r\n",
    "signed size": b"+4\r\nabcd\r\n0\r\n\r\n",
    "prefix": b"0x4\r\nabcd\r\n0\r\n\r\n",
    "overflow": b"10000000000000004\r\nabcd\r\n0\r\n\r\n",
    "no end of the chunk": b"4\r\nabcdX\r\n0\r\n\r\n",
    "bare LF": b"4\nabcd\n0\n\n",
    "bare LF in an extension": b"4;a\nb\r\nabcd\r\n0\r\n\r\n",
    "space in front": b" 4\r\nabcd\r\n0\r\n\r\n",
    "trailer": b"4\r\nabcd\r\n0\r\nX : y\r\n\r\n",
}


def requests_in(received: bytes) -> list[bytes]:
    """The targets of all requests that an independent reader finds in what a backend was sent."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(received)
    targets = []
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            targets.append(event.target)
        elif isinstance(event, h11.EndOfMessage):
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()
        elif event is h11.NEED_DATA or event is h11.PAUSED:
            return targets


@pytest.mark.parametrize("name", REFUSED)
@proxied
async def test_what_may_be_read_in_two_ways_is_refused_and_ends_the_connection(name):
    async with Backend(answer(ok())) as one, Backend(answer(ok())) as two, Rig(one, two) as rig:
        async with await rig.connect() as client:
            await client.send(REFUSED[name] + get(b"/smuggled"))
            reply = await client.reply()
            assert 400 <= reply.status < 600
            assert not reply.keeps
            client.writer.write_eof()
            assert await client.rest() == b""
        assert one.received == two.received == []
        assert rig.ends() == {"bad-request": 1}
        assert rig.count("refused_total") == 1


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("name", BAD_CHUNKS)
@proxied
async def test_a_body_that_breaks_the_rules_never_becomes_a_whole_request(name, at_once):
    async with Backend(answer(ok())) as one, Backend(answer(ok())) as two, Rig(one, two) as rig:
        async with await rig.connect() as client:
            if at_once:
                await client.send(CHUNKED + BAD_CHUNKS[name] + get(b"/smuggled"))
            else:
                await client.send(CHUNKED)
                while not (one.connections or two.connections):
                    await asyncio.sleep(0)
                await client.send(BAD_CHUNKS[name] + get(b"/smuggled"))
            reply = await client.reply()
            assert (reply.status, reply.keeps) == (400, False)
            client.writer.write_eof()
            assert await client.rest() == b""
        for received in one.received + two.received:
            assert b"smuggled" not in received
            assert b"\r\n0\r\n" not in received
        assert rig.ends() == {"bad-request": 1}


@pytest.mark.parametrize("cut", [1, 7, 1000])
@proxied
async def test_a_body_that_looks_like_a_request_is_a_body(cut):
    inner = get(b"/inner")
    chunked = CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)
    sized = b"POST /sized HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(inner), inner)
    stream = sized + chunked + get(b"/last")
    async with Backend(answer(ok())) as backend, Rig(backend) as rig, await rig.connect() as client:
        for at in range(0, len(stream), cut):
            await client.send(stream[at : at + cut])
        assert [(await client.reply()).status for _ in range(3)] == [200] * 3
        assert requests_in(backend.received[0]) == [b"/sized", b"/", b"/last"]


@proxied
async def test_what_is_for_one_connection_stays_behind():
    request = get(
        b"/",
        b"Connection: X-Private, keep-alive",
        b"X-Private: secret",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"TE: gzip",
        b"X-Forwarded-For: 6.6.6.6",
        b"X-Real-IP: 6.6.6.6",
        b"Forwarded: for=6.6.6.6",
        b"X_Forwarded_For: 6.6.6.6",
        b"Transfer_Encoding: chunked",
        b"Content_Length: 5",
        b"X-Public: yes",
    )
    reply = ok(b"ok", b"Connection: X-Hop", b"X-Hop: 1", b"Keep-Alive: max=5")
    async with Backend(answer(reply)) as backend, Rig(backend) as rig:
        reply = await rig.ask(request)
    sent = backend.received[0].lower()
    for name in (
        b"x-private",
        b"keep-alive",
        b"proxy-connection",
        b"\r\nte:",
        b"6.6.6.6",
        b"connection",
        b"transfer",
        b"length",
    ):
        assert name not in sent
    assert b"\r\nx-public: yes\r\n" in sent
    assert not {b"x-hop", b"keep-alive"} & {name for name, _ in reply.headers}


@proxied
async def test_no_answer_goes_to_another_client():
    async def handle(exchange: Exchange) -> None:
        while True:
            head = await exchange.head()
            await exchange.send(ok(head.split()[1]))

    async with Backend(handle) as one, Backend(handle) as two, Rig(one, two) as rig:

        async def ask(number: int) -> None:
            async with await rig.connect() as client:
                for turn in range(30):
                    path = b"/%d/%d" % (number, turn)
                    await client.send(get(path) if turn % 3 else get(path) + get(path + b"/next"))
                    assert (await client.reply()).body == path
                    if not turn % 3:
                        assert (await client.reply()).body == path + b"/next"

        await asyncio.gather(*(ask(number) for number in range(20)))
