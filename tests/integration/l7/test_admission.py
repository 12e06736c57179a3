"""PROXY headers in and out, TLS, and connections that are passed through by the name in their ClientHello."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import trustme

from l7.model import AccessLog, Certificate, ListenerTls, LogFormat, PassThrough, ProxyProtocol
from l7.proxy.backlog import waiting
from l7.wire.proxyprotocol import build_header
from tests.support.proxying import Backend, Exchange, Rig, answer, get, ok, proxied

CLIENT = (ip_address("203.0.113.9"), 4711)
LOCAL = (ip_address("198.51.100.1"), 80)
FROM_HERE = {"accept_proxy": (ip_network("127.0.0.0/8"),)}
TLS = {"tls": ListenerTls((Certificate(Path("unused")),))}


def contexts(*names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server with a certificate for these names, and of a client that trusts it."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("cut", [1, 1000])
@proxied
async def test_a_proxy_header_says_who_the_client_is(version, cut):
    stream = build_header(version, CLIENT, LOCAL) + get()
    async with Backend(answer(ok())) as backend, Rig(backend, listener=FROM_HERE) as rig:
        async with await rig.connect() as client:
            for at in range(0, len(stream), cut):
                await client.send(stream[at : at + cut])
                await asyncio.sleep(0)
            assert (await client.reply()).status == 200
        assert b"\r\nX-Forwarded-For: 203.0.113.9\r\n" in backend.received[0]
        assert rig.lines()[0]["client"] == "203.0.113.9"


@pytest.mark.parametrize("version", [1, 2])
@proxied
async def test_tls_begins_behind_the_proxy_header(version):
    server, trusting = contexts("example.com")
    async with (
        Backend(answer(ok())) as backend,
        Rig(backend, listener=FROM_HERE | TLS, context=server) as rig,
    ):
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.create_connection(lambda: protocol, "127.0.0.1", rig.port)
        transport.write(build_header(version, CLIENT, LOCAL))
        secure = await loop.start_tls(transport, protocol, trusting, server_hostname="example.com")
        secure.write(get())
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        secure.close()
        assert b"\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n" in backend.received[0]


@pytest.mark.parametrize(
    ("listener", "begin"),
    [
        (FROM_HERE, get()),
        (FROM_HERE, b"PROXY TCP4 nonsense\r\n" + get()),
        ({"accept_proxy": (ip_network("10.0.0.0/8"),)}, build_header(1, CLIENT, LOCAL) + get()),
    ],
)
@proxied
async def test_connections_without_a_sound_proxy_header_are_refused(listener, begin):
    async with Backend(answer(ok())) as backend, Rig(backend, listener=listener) as rig:
        async with await rig.connect() as client:
            await client.send(begin)
            with contextlib.suppress(ConnectionResetError):
                assert await client.rest() == b""
        assert backend.connections == []
        assert rig.count("listener_proxy_refused_total") == 1


async def answer_named(exchange: Exchange) -> None:
    """Answers all requests of a connection that begins with a PROXY header."""
    # Version 2 begins with an empty line of its own.
    await exchange.until(b"GET / HTTP/1.1\r\n")
    while True:
        await exchange.head()
        await exchange.send(ok())


@pytest.mark.parametrize("version", list(ProxyProtocol))
@proxied
async def test_backends_are_told_who_the_client_is(version):
    async with Backend(answer_named) as backend, Rig(backend, pool={"proxy_protocol": version}) as rig:
        async with await rig.connect() as client:
            port = client.writer.get_extra_info("sockname")[1]
            for _ in range(2):
                await client.send(get())
                assert (await client.reply()).status == 200
        here = ip_address("127.0.0.1")
        # Both requests went over one connection, whose header was sent once.
        (received,) = backend.received
        header = build_header(version, (here, port), (here, rig.port))
        assert received.startswith(header + b"GET / HTTP/1.1\r\n")
        assert received.count(header) == 1
        assert received.count(b"GET / HTTP/1.1\r\n") == 2


@proxied
async def test_a_connection_that_names_a_client_is_of_no_other_and_ends_with_it():
    told = {"proxy_protocol": ProxyProtocol.V1}
    async with Backend(answer_named) as backend, Rig(backend, pool=told) as rig:
        async with await rig.connect() as one, await rig.connect() as two:
            for client in (one, two, one, two):
                await client.send(get())
                assert (await client.reply()).status == 200
            assert len(backend.connections) == 2
            assert rig.proxy.describe()["pools"]["p"]["backends"][f"127.0.0.1:{backend.port}"]["kept"] == 2
        while rig.proxy.describe()["connections"]:
            await asyncio.sleep(0)
        assert rig.proxy.describe()["pools"]["p"]["backends"][f"127.0.0.1:{backend.port}"]["kept"] == 0


@proxied
async def test_clients_behind_one_trusted_connection_do_not_share_what_names_one():
    told = {"proxy_protocol": ProxyProtocol.V1}
    trusted = {"trusted_proxies": (ip_network("127.0.0.0/8"),)}
    async with (
        Backend(answer_named) as backend,
        Rig(backend, pool=told, config=trusted) as rig,
        await rig.connect() as client,
    ):
        for who in (b"192.0.2.1", b"192.0.2.2", b"192.0.2.1"):
            await client.send(get(b"/", b"X-Forwarded-For: " + who))
            assert (await client.reply()).status == 200
    assert sorted(received.split()[2] for received in backend.received) == [b"192.0.2.1", b"192.0.2.2"]


@proxied
async def test_https_requests_carry_what_is_known_of_the_connection():
    server, trusting = contexts("example.com")
    async with Backend(answer(ok())) as backend, Rig(backend, listener=TLS, context=server) as rig:
        async with await rig.connect(ssl=trusting, server_hostname="example.com") as client:
            for _ in range(3):
                await client.send(get())
                assert (await client.reply()).body == b"ok"
        assert b"\r\nX-Forwarded-Proto: https\r\n" in backend.received[0]
        assert rig.lines()[0]["tls"] == "TLSv1.3"
        assert rig.count("listener_tls_handshakes_total") == 1


@proxied
async def test_handshakes_that_fail_are_counted():
    server, _ = contexts("example.com")
    async with Backend(answer(ok())) as backend, Rig(backend, listener=TLS, context=server) as rig:
        async with await rig.connect() as client:
            await client.send(get())
            await client.rest()
        while rig.count("listener_connections"):
            await asyncio.sleep(0)
        assert rig.count("listener_tls_failures_total") == 1


@proxied
async def test_backends_may_speak_tls():
    server, trusting = contexts("127.0.0.1")
    async with Backend(answer(ok()), server) as backend, Rig(backend, backend_context=trusting) as rig:
        for _ in range(3):
            assert (await rig.ask(get())).body == b"ok"
        assert len(backend.connections) == 1
    strange = ssl.create_default_context()
    async with Backend(answer(ok()), server) as backend, Rig(backend, backend_context=strange) as rig:
        assert (await rig.ask(get())).status == 502


@proxied
async def test_connections_are_passed_through_by_name():
    inner, trusting = contexts("inner.example.com", "deep.sub.example.com")
    server, trusting_own = contexts("example.com")
    listener = TLS | {"pass_through": (PassThrough(("inner.example.com", "*.sub.example.com"), "p"),)}
    # One backend for both ways: it speaks TLS, and so does the proxy to it.
    own = {"context": server, "backend_context": trusting}
    async with (
        Backend(answer(ok(b"through")), inner) as backend,
        Rig(backend, listener=listener, **own) as rig,
    ):
        for name in ("inner.example.com", "deep.sub.example.com"):
            async with await rig.connect(ssl=trusting, server_hostname=name) as client:
                await client.send(get())
                assert (await client.reply()).body == b"through"
        assert all(b"X-Forwarded-For" not in received for received in backend.received)
        async with await rig.connect(ssl=trusting_own, server_hostname="example.com") as client:
            await client.send(get())
            assert (await client.reply()).status == 502
        while rig.count("worker_tunnels"):
            await asyncio.sleep(0)
        assert rig.ends() == {"done": 2, "connect-failed": 1}
        first, second, _ = rig.lines()
        assert (first["server_name"], second["server_name"]) == ("inner.example.com", "deep.sub.example.com")
        for line, received in zip((first, second), backend.received, strict=False):
            assert (line["protocol"], line["client"], line["listener"]) == ("TCP", "127.0.0.1", "web")
            assert (line["pool"], line["backend"]) == ("p", f"127.0.0.1:{backend.port}")
            # The handshake counts, too.
            assert line["bytes_in"] > len(received) > 0 < line["bytes_out"]
            assert (line["end"], line["tries"]) == ("done", 1)
            assert line["total_s"] > 0


@proxied
async def test_what_is_no_tls_is_passed_through_where_all_others_are():
    async def speak_first(exchange: Exchange) -> None:
        await exchange.send(b"220 ready\r\n")
        assert await exchange.until(b"\n") == b"EHLO a\r\n"
        await exchange.send(b"250 ok\r\n")

    listener = {"pass_through": (PassThrough((), "p"),)}
    async with (
        Backend(speak_first) as backend,
        Rig(backend, listener=listener) as rig,
        await rig.connect() as client,
    ):
        await client.send(b"EHLO a\r\n")
        assert await client.rest() == b"220 ready\r\n250 ok\r\n"


@proxied
async def test_connections_that_nobody_takes_have_a_line_too():
    listener = {"pass_through": (PassThrough((), "p"),)}
    async with Backend(answer(ok())) as backend:
        await backend.stop()
        async with Rig(backend, listener=listener) as rig, await rig.connect() as client:
            with contextlib.suppress(ConnectionResetError):
                await client.send(b"hello")
                assert await client.rest() == b""
            (line,) = rig.lines()
            assert (line["end"], line["server_name"], line["tries"]) == ("connect-failed", "", 1)
            assert rig.ends() == {"connect-failed": 1}


@proxied
async def test_lines_of_the_passed_in_nginx_s_format(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "access.log"
    inner, trusting = contexts("inner.example.com")
    listener = {"pass_through": (PassThrough(("inner.example.com",), "p"),)}
    log = {"access_log": AccessLog(path, LogFormat.COMBINED)}
    async with Backend(answer(ok()), inner) as backend, Rig(backend, listener=listener, config=log) as rig:
        async with await rig.connect(ssl=trusting, server_hostname="inner.example.com") as client:
            await client.send(get())
            await client.reply()
        while rig.count("worker_tunnels"):
            await asyncio.sleep(0)
    line = r'127\.0\.0\.1 - - \[[^]]+\] "PASS inner\.example\.com TCP" 000 [1-9]\d* "-" "-"\n'
    assert re.fullmatch(line, path.read_text())


@pytest.mark.parametrize("listener", [FROM_HERE, {"pass_through": (PassThrough((), "p"),)}])
@proxied
async def test_a_full_listener_is_full_of_those_without_requests_too(listener):
    async def greet(exchange: Exchange) -> None:
        await exchange.read()
        await exchange.send(b"220 ready\r\n")
        await exchange.read()

    async with (
        Backend(greet) as backend,
        Rig(backend, listener=listener | {"max_connections": 2}) as rig,
        await rig.connect() as first,
        await rig.connect() as second,
    ):
        begin = b"hello" if "pass_through" in listener else b"PROXY TCP4 "
        for client in (first, second):
            await client.send(begin)
        while rig.proxy.describe()["listeners"]["web"] < 2:
            await asyncio.sleep(0)
        async with await rig.connect() as third:
            await third.send(begin)
            await asyncio.sleep(0.05)
            assert waiting(rig.sock) == 1
            await first.__aexit__()
            while waiting(rig.sock):
                await asyncio.sleep(0)
    while rig.proxy.describe()["listeners"]["web"]:
        await asyncio.sleep(0)
