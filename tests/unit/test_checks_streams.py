"""tcp, http, https and tls against servers on loopback: success, failure, hanging, garbage."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from l4lb.model import CheckType, Expectation, HealthCheck
from l4lb.net.checks import streams
from l4lb.net.checks.kinds import check
from l4lb.net.checks.target import Outcome, Target

LOCAL = ip_address("127.0.0.1")
SOON_S = 0.2
LATE_S = 30.0
BAD_LENGTH = "the answer is not HTTP: its length is no number"
BAD_CHUNKS = "the answer is not HTTP: its chunks are broken"
CUT_BODY = "connection closed before the whole body"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfine\n"
PLAIN_TYPES = [CheckType.TCP, CheckType.HTTP, CheckType.HTTPS, CheckType.TLS]


def settings(kind: CheckType, timeout_s: float = LATE_S, **words: object) -> HealthCheck:
    return HealthCheck(kind, timeout_s=timeout_s, **words)  # type: ignore[arg-type]


def expecting(**words: object) -> HealthCheck:
    return settings(CheckType.HTTP, expect=Expectation(**words))  # type: ignore[arg-type]


class Server:
    """A server that reads a request's headers, says something and, unless it hangs, closes."""

    def __init__(self, says: bytes, hangs: bool) -> None:
        self.says = says
        self.hangs = hangs
        self.requests: list[bytes] = []
        self.target = Target(LOCAL, 0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.says)
            await writer.drain()
            if self.hangs:
                await reader.read()
        writer.transport.abort() if self.hangs else writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def others_end() -> None:
    """Waits for all tasks but this one: each connection is one or two of them."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


@contextlib.asynccontextmanager
async def server(
    says: bytes = OK, *, hangs: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    made = Server(says, hangs)
    listening = await asyncio.start_server(made.serve, str(LOCAL), 0, ssl=tls)
    made.target = Target(LOCAL, listening.sockets[0].getsockname()[1])
    try:
        yield made
    finally:
        listening.close()
        await others_end()


def ask(
    how: HealthCheck, says: bytes = OK, *, hangs: bool = False, tls: ssl.SSLContext | None = None
) -> tuple[Outcome, list[bytes]]:
    """The outcome of a check of a server, and what the server was asked."""

    async def run() -> tuple[Outcome, list[bytes]]:
        async with server(says, hangs=hangs, tls=tls) as made:
            return await check(made.target, how), made.requests

    return asyncio.run(run())


@contextlib.contextmanager
def bound(family: socket.AddressFamily = socket.AF_INET) -> Iterator[tuple[socket.socket, Target]]:
    """A socket with a port that does not listen yet."""
    with socket.socket(family) as sock:
        sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        address, port = sock.getsockname()[:2]
        yield sock, Target(ip_address(address), port)


@contextlib.contextmanager
def mute() -> Iterator[Target]:
    """A port whose queue of connections is full: SYNs get no answer."""
    with contextlib.ExitStack() as stack:
        sock, target = stack.enter_context(bound())
        sock.listen(0)
        for _ in range(3):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex((str(target.address), target.port))
        yield target


def test_a_connection_is_a_success():
    outcome, _ = ask(settings(CheckType.TCP))
    assert (outcome.ok, outcome.why, outcome.weight) == (True, "connected", None)
    assert 0 < outcome.took_s < LATE_S


def test_a_connection_over_ipv6():
    try:
        with bound(socket.AF_INET6) as (sock, target):
            sock.listen()
            assert asyncio.run(check(target, settings(CheckType.TCP))).ok
    except OSError:
        pytest.skip("this host has no IPv6")


def test_it_asks_from_the_source():
    with bound() as (sock, target):
        sock.listen()
        asked = Target(target.address, target.port, source=ip_address("127.0.0.9"))
        assert asyncio.run(check(asked, settings(CheckType.TCP))).ok
        accepted, peer = sock.accept()
        accepted.close()
        assert peer[0] == "127.0.0.9"


def test_a_connection_ends_with_a_reset_and_leaves_no_time_wait():
    with bound() as (sock, target):
        sock.listen()
        assert asyncio.run(check(target, settings(CheckType.TCP))).ok
        with sock.accept()[0] as accepted, pytest.raises(ConnectionResetError):
            accepted.recv(1)


@pytest.mark.parametrize("kind", PLAIN_TYPES)
def test_a_closed_port_is_a_failure(kind):
    with bound() as (_, target):
        outcome = asyncio.run(check(target, settings(kind)))
    assert (outcome.ok, outcome.why) == (False, "connection refused")


@pytest.mark.parametrize("kind", PLAIN_TYPES)
def test_no_answer_to_a_syn_ends_with_the_timeout(kind):
    with mute() as target:
        outcome = asyncio.run(check(target, settings(kind, SOON_S)))
    assert not outcome.ok
    assert outcome.why.startswith("no ") and outcome.why.endswith(" in 0.2 s")
    assert SOON_S <= outcome.took_s < LATE_S


@pytest.mark.parametrize(
    ("kind", "says", "why"),
    [
        (CheckType.HTTP, b"", "no HTTP answer in 0.2 s"),
        (CheckType.HTTP, b"HTTP/1.1 200 OK\r\nContent-Le", "no HTTP answer in 0.2 s"),
        (CheckType.HTTPS, b"", "no answer in 0.2 s"),
        (CheckType.TLS, b"", "no TLS handshake in 0.2 s"),
    ],
)
def test_a_server_that_hangs_ends_with_the_timeout(kind, says, why):
    outcome, _ = ask(settings(kind, SOON_S), says, hangs=True)
    assert (outcome.ok, outcome.why) == (False, why)


def test_a_body_that_never_comes_matters_where_it_is_asked_for():
    says = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfi"
    assert ask(settings(CheckType.HTTP), says, hangs=True)[0].ok
    outcome, _ = ask(settings(CheckType.HTTP, SOON_S, expect=Expectation(body="fine")), says, hangs=True)
    assert (outcome.ok, outcome.why) == (False, "no whole body in 0.2 s")


def status(code: int, headers: str = "", body: bytes = b"") -> bytes:
    return f"HTTP/1.1 {code} Some Words\r\n{headers}\r\n".encode() + body


@pytest.mark.parametrize(
    ("code", "ranges", "why"),
    [
        (200, ((200, 399),), None),
        (302, ((200, 399),), None),
        (404, ((200, 399),), "status 404, wanted 200-399"),
        (503, ((200, 200), (300, 310)), "status 503, wanted 200, 300-310"),
        (401, ((200, 200), (401, 401)), None),
    ],
)
def test_status(code, ranges, why):
    outcome, _ = ask(expecting(status=ranges), status(code))
    assert (outcome.ok, outcome.why) == (why is None, why or f"status {code}")


@pytest.mark.parametrize(
    "says",
    [
        status(200, "Content-Length: 9\r\n", b"all fine\n"),
        status(200, "", b"all fine\n"),
        status(200, "Transfer-Encoding: chunked\r\n", b"5\r\nall f\r\n4;x=y\r\nine\n\r\n0\r\n\r\n"),
        status(100) + status(103, "Link: </x>\r\n") + status(200, "Content-Length: 8\r\n", b"all fine"),
        b"HTTP/1.0 200\n\nall fine",
    ],
    ids=["length", "to-the-end", "chunks", "interim", "line-feeds"],
)
def test_the_body_is_found_however_it_is_framed(says):
    outcome, _ = ask(expecting(body="all fine", pattern=r"all\s+f[aio]ne"), says)
    assert (outcome.ok, outcome.why) == (True, "status 200")


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"body": "green"}, "the body does not have 'green'"),
        ({"pattern": "^green"}, "the body does not match '^green'"),
        ({"body": "fine", "pattern": "x" * 50}, f"the body does not match '{'x' * 39}…'"),
    ],
)
def test_another_body_is_a_failure(wanted, why):
    outcome, _ = ask(expecting(**wanted))
    assert (outcome.ok, outcome.why) == (False, why)


def test_only_the_first_64_kib_of_a_body_are_read():
    endless = status(200, "", b"x" * (64 << 10) + b"needle" + b"x" * 100_000)
    assert not ask(expecting(body="needle"), endless)[0].ok
    assert ask(expecting(body="x" * (64 << 10)), endless, hangs=True)[0].ok
    chunks = status(200, "Transfer-Encoding: chunked\r\n", b"fffff\r\n" + b"x" * 100_000)
    assert ask(expecting(body="x" * (64 << 10)), chunks, hangs=True)[0].ok


def test_an_answer_that_has_no_body():
    assert ask(
        settings(CheckType.HTTP, method="HEAD", expect=Expectation(pattern="^$")),
        status(200, "Content-Length: 100\r\n"),
        hangs=True,
    )[0].ok
    assert ask(expecting(pattern="^$"), status(204, "Content-Length: 1\r\n"), hangs=True)[0].ok


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (b"", "connection closed before the HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent", "connection closed before the HTTP answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 2xx OK\r\n\r\n", "the answer is not HTTP"),
        (bytes(range(256)) * 4, "the answer is not HTTP"),
        (b"x" * 200_000, "the answer is not HTTP: a line is too long"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000, "the answer's headers are larger than 32 KiB"),
        (status(100) * 20, "only interim answers (1xx)"),
        (status(200, "Content-Length: 9\r\n", b"fine"), CUT_BODY),
        (status(200, "Content-Length: -1\r\n"), BAD_LENGTH),
        (status(200, "Content-Length: " + "9" * 5000 + "\r\n"), BAD_LENGTH),
        (status(200, "Transfer-Encoding: chunked\r\n", b"zz\r\n"), BAD_CHUNKS),
        (status(200, "Transfer-Encoding: chunked\r\n", b"9\r\nfine"), CUT_BODY),
    ],
)
def test_garbage_is_a_failure(says, why):
    outcome, _ = ask(expecting(body="fine"), says)
    assert (outcome.ok, outcome.why) == (False, why)


def test_the_request_is_as_configured():
    how = settings(
        CheckType.HTTP,
        path="/health?deep=1",
        method="POST",
        host="shop.example",
        headers=(("X-Token", "a b"), ("user-agent", "mine"), ("Connection", "keep-alive")),
    )
    _, (request,) = ask(how)
    lines = request.decode().split("\r\n")
    assert lines[0] == "POST /health?deep=1 HTTP/1.1"
    assert sorted(lines[1:-2]) == [
        "Accept: */*",
        "Connection: close",
        "Content-Length: 0",
        "Host: shop.example",
        "X-Token: a b",
        "user-agent: mine",
    ]


def test_the_host_is_the_address_unless_it_is_given():
    async def run() -> None:
        async with server() as made:
            await check(made.target, settings(CheckType.HTTP))
            assert f"\r\nHost: 127.0.0.1:{made.target.port}\r\n".encode() in made.requests[0]

    asyncio.run(run())
    assert Target(ip_address("2001:db8::1"), 80).host == "[2001:db8::1]"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (None, "127.0.0.1"),
        ("shop.example", "shop.example"),
        ("shop.example:8443", "shop.example"),
        ("[::1]:8443", "::1"),
        ("::1", "::1"),
    ],
)
def test_the_name_for_tls(host, name):
    assert streams.server_name(Target(LOCAL, 443), settings(CheckType.TLS, host=host)) == name


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of shop.example and 127.0.0.1 in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the program openssl is not installed")
    directory = tmp_path_factory.mktemp("tls")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=l4lb"
    names = ["-addext", "subjectAltName=DNS:shop.example,IP:127.0.0.1"]
    files = ["-keyout", str(directory / "key"), "-out", str(directory / "certificate")]
    subprocess.run([openssl, *words.split(), *names, *files], check=True, capture_output=True, timeout=30)
    both = directory / "both.pem"
    both.write_text((directory / "key").read_text() + (directory / "certificate").read_text())
    return both


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The certificate is one of the host's authorities."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    streams.tls_context.cache_clear()
    yield
    streams.tls_context.cache_clear()


BOTH_TLS = pytest.mark.parametrize(
    ("kind", "why"), [(CheckType.HTTPS, "status 200"), (CheckType.TLS, "TLSv1.3 handshake")]
)


@BOTH_TLS
@pytest.mark.parametrize("host", [None, "shop.example", "shop.example:443"])
def test_a_certificate_that_is_valid(tls, trusted, kind, why, host):
    outcome, _ = ask(settings(kind, host=host), tls=tls)
    assert (outcome.ok, outcome.why) == (True, why)


@BOTH_TLS
def test_a_certificate_of_another_name(tls, trusted, kind, why):
    outcome, _ = ask(settings(kind, host="other.example"), tls=tls)
    assert not outcome.ok
    assert outcome.why.startswith("certificate not accepted: Hostname mismatch")


@BOTH_TLS
def test_a_certificate_that_nobody_vouches_for(tls, kind, why):
    outcome, _ = ask(settings(kind), tls=tls)
    assert (outcome.ok, outcome.why) == (False, "certificate not accepted: self-signed certificate")


@BOTH_TLS
def test_verification_can_be_left_out(tls, kind, why):
    outcome, _ = ask(settings(kind, verify=False, host="other.example"), tls=tls)
    assert (outcome.ok, outcome.why) == (True, why)


def test_the_name_is_asked_for(tls):
    asked = []
    tls.sni_callback = lambda connection, name, context: asked.append(name)
    ask(settings(CheckType.TLS, verify=False, host="shop.example"), tls=tls)
    ask(settings(CheckType.TLS, verify=False), tls=tls)
    assert asked == ["shop.example", None]


@pytest.mark.parametrize("kind", [CheckType.HTTPS, CheckType.TLS])
def test_a_server_without_tls(kind):
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async def run() -> Outcome:
        listening = await asyncio.start_server(plain, str(LOCAL), 0)
        try:
            return await check(Target(LOCAL, listening.sockets[0].getsockname()[1]), settings(kind))
        finally:
            listening.close()
            await others_end()

    outcome = asyncio.run(run())
    assert (outcome.ok, outcome.why) == (False, "TLS handshake failed: wrong version number")


def test_contexts_are_kept():
    assert streams.tls_context(True) is streams.tls_context(True)
    assert streams.tls_context(True) is not streams.tls_context(False)


@pytest.mark.parametrize("kind", [CheckType.HTTP, CheckType.TLS])
def test_a_check_that_is_cancelled_closes_its_connection(kind):
    async def run() -> None:
        gone = asyncio.Event()
        came = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            came.set()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
            gone.set()

        listening = await asyncio.start_server(serve, str(LOCAL), 0)
        target = Target(LOCAL, listening.sockets[0].getsockname()[1])
        task = asyncio.create_task(check(target, settings(kind)))
        await came.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(gone.wait(), LATE_S)
        listening.close()
        await others_end()

    asyncio.run(run())
