"""An HTTP server whose answers are odd, one for each path: most are legal, some are what broken servers send.

Besides those of `ANSWERS`: `/echo` answers with method, target and body, `/continued` does so behind a 100,
`/headers` with the headers; `/early` answers before it has read the body, `/reset` resets the connection. It
runs in threads of the test's process.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader

BODY = b"0123456789" * 100
TIMEOUT_S = 10.0

# What is written for a path, and whether the connection goes on behind it.
ANSWERS: dict[str, tuple[bytes, bool]] = {
    "/plain": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + BODY, True),
    "/empty-reason": (b"HTTP/1.1 200 \r\nContent-Length: 1000\r\n\r\n" + BODY, True),
    "/unknown-status": (b"HTTP/1.1 299 Odd\r\nContent-Length: 1000\r\n\r\n" + BODY, True),
    "/until-close": (b"HTTP/1.1 200 OK\r\n\r\n" + BODY, False),
    "/old": (b"HTTP/1.0 200 OK\r\n\r\n" + BODY, False),
    "/old-kept": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1000\r\n\r\n" + BODY, True),
    "/chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8;a=b\r\n" + BODY + b"\r\n0\r\n\r\n",
        True,
    ),
    "/trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3e8\r\n"
        + BODY
        + b"\r\n0\r\nX-Sum: 1\r\n\r\n",
        True,
    ),
    "/no-content": (b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n", True),
    "/not-modified": (b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 1000\r\n\r\n', True),
    "/nothing": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
    "/hints": (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + BODY,
        True,
    ),
    "/cookies": (
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2; Path=/\r\nContent-Length: 1000\r\n\r\n"
        + BODY,
        True,
    ),
    "/latin": (b"HTTP/1.1 200 OK\r\nX-Name: Gr\xfc\xdfe\r\nContent-Length: 1000\r\n\r\n" + BODY, True),
    "/large-head": (
        b"HTTP/1.1 200 OK\r\nX-Large: " + b"a" * 30_000 + b"\r\nContent-Length: 1000\r\n\r\n" + BODY,
        True,
    ),
    "/huge-head": (
        b"HTTP/1.1 200 OK\r\nX-Large: " + b"a" * 40_000 + b"\r\nContent-Length: 1000\r\n\r\n" + BODY,
        True,
    ),
    "/too-much": (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + BODY, True),
    "/short": (b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + BODY, False),
    "/short-chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + BODY, False),
    "/no-last-chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + BODY + b"\r\n",
        False,
    ),
    "/both-lengths": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n"
        + BODY
        + b"\r\n0\r\n\r\n",
        True,
    ),
    "/two-lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Length: 1000\r\n\r\n" + BODY, False),
    "/bare-lf": (b"HTTP/1.1 200 OK\nContent-Length: 1000\n\n" + BODY, True),
    "/folded": (b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 1000\r\n\r\n" + BODY, True),
    "/garbage": (b"this is no HTTP\r\n\r\n", False),
    "/half-head": (b"HTTP/1.1 200 OK\r\nContent-Le", False),
    "/silent": (b"", False),
    "/switching": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", False),
}


@dataclass
class OddServer:
    """One that runs; `endpoint` is where."""

    endpoint: str
    requests: int = 0


@contextmanager
def odd_server(address: str) -> Iterator[OddServer]:
    """Serves at a port of that address until the block ends."""
    listener = socket.create_server((address, 0), backlog=128)
    server = OddServer("{}:{}".format(*listener.getsockname()))

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_serve, args=(server, sock), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(TIMEOUT_S)


def _serve(server: OddServer, sock: socket.socket) -> None:
    sock.settimeout(TIMEOUT_S)
    with sock, suppress(OSError, EOFError), sock.makefile("rb") as stream:
        goes_on = True
        while goes_on:
            method, target, _ = _line(stream).decode("latin-1").split(" ")
            headers = {}
            while line := _line(stream):
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            server.requests += 1
            goes_on = _answer(sock, method, target, headers, _body(headers, stream))


def _line(stream: BufferedReader) -> bytes:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return line.rstrip(b"\r\n")


def _body(headers: dict[str, str], stream: BufferedReader) -> Iterator[bytes]:
    """What comes of the body, piece by piece."""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(_line(stream), 16):
            yield _exactly(stream, size)
            _line(stream)
        while _line(stream):
            pass
        return
    left = int(headers.get("content-length", "0"))
    while left:
        piece = _exactly(stream, min(left, 1 << 16))
        left -= len(piece)
        yield piece


def _exactly(stream: BufferedReader, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _answer(
    sock: socket.socket, method: str, target: str, headers: dict[str, str], pieces: Iterator[bytes]
) -> bool:
    """Answers; whether the connection goes on."""
    path = target.partition("?")[0]
    if path == "/early":
        # The answer comes before the body was read, and nothing of it is.
        sock.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n" + BODY)
        sock.shutdown(socket.SHUT_WR)
        for _ in pieces:
            pass
        return False
    if path == "/continued":
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = b"".join(pieces)
    if path in ("/echo", "/continued", "/headers"):
        seen = f"{method} {target}\n".encode() + body
        if path == "/headers":
            seen += "".join(f"{name}: {value}\n" for name, value in headers.items()).encode("latin-1")
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(seen)
        sock.sendall(head if method == "HEAD" else head + seen)
        return True
    if path == "/reset":
        _reset(sock)
        return False
    answer, goes_on = ANSWERS.get(path, (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", True))
    if method == "HEAD":
        *interim, head = answer.split(b"HTTP/1.")
        answer = b"HTTP/1.".join([*interim, head.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"])
    sock.sendall(answer)
    return goes_on


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
