"""A small HTTP/1.1 server that says who it is, for tests and the demo.

    python -m tests.support.http_server --name b1 --port 8080

Every answer carries the name in the header X-Backend. What is asked for decides the body:

    /             the name and a newline
    /bytes/N      N bytes
    /echo         the body of the request
    /after/MS     the name, after so many milliseconds

It keeps connections alive, understands bodies by Content-Length, and counts connections that asked for
something, requests, and the bytes that it sent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support import counters

BACKLOG = 1024
LARGEST_BODY = 64 << 20
# A client that says nothing for so long is gone; tests end long before.
IDLE_TIMEOUT_S = 75.0


@dataclass
class Counts:
    """What the server did so far."""

    name: str
    connections: int = 0
    requests: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Request:
    """What this server needs to know about a request."""

    method: str
    path: str
    keep_alive: bool
    body: bytes


class BadRequestError(Exception):
    """What came is no HTTP that this server speaks."""


async def parse_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request, or None when the client has closed."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    except asyncio.LimitOverrunError as error:
        raise BadRequestError("header too large") from error
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    try:
        method, path, version = first.split(" ")
    except ValueError as error:
        raise BadRequestError("request line") from error
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequestError("header line")
        headers[name.lower()] = value.strip()
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length.isdecimal() or int(length) > LARGEST_BODY:
        raise BadRequestError("body length")
    connection = headers.get("connection", "").lower()
    keep_alive = connection != "close" and (version == "HTTP/1.1" or connection == "keep-alive")
    return Request(method, path, keep_alive, await reader.readexactly(int(length)))


def build_response(name: str, status: str, body: bytes, *, keep_alive: bool, with_body: bool = True) -> bytes:
    """The bytes of one response; HEAD gets the header alone."""
    head = (
        f"HTTP/1.1 {status}\r\n"
        f"X-Backend: {name}\r\n"
        "Content-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Connection: {'keep-alive' if keep_alive else 'close'}\r\n\r\n"
    ).encode()
    return head + body if with_body else head


def body_for(request: Request, name: str) -> bytes:
    """The body that the path asks for."""
    if request.path == "/echo":
        return request.body
    word, _, size = request.path.removeprefix("/").partition("/")
    if word == "bytes" and size.isdecimal():
        return b"x" * min(int(size), LARGEST_BODY)
    return f"{name}\n".encode()


def delay_s(path: str) -> float:
    """How long the path asks to wait."""
    word, _, milliseconds = path.removeprefix("/").partition("/")
    return int(milliseconds) / 1000 if word == "after" and milliseconds.isdecimal() else 0.0


class Server:
    """Serves connections and counts them."""

    def __init__(self, name: str) -> None:
        self.counts = Counts(name)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests until one side ends it."""
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = self.counts.name
        first = True
        while True:
            try:
                async with asyncio.timeout(IDLE_TIMEOUT_S):
                    request = await parse_request(reader)
            except BadRequestError as error:
                writer.write(build_response(name, "400 Bad Request", f"{error}\n".encode(), keep_alive=False))
                await writer.drain()
                return
            if request is None:
                return
            await asyncio.sleep(delay_s(request.path))
            # Counted before the answer leaves: who has the answer finds it counted.
            response = build_response(
                name,
                "200 OK",
                body_for(request, name),
                keep_alive=request.keep_alive,
                with_body=request.method != "HEAD",
            )
            self.counts.connections += first
            self.counts.requests += 1
            self.counts.bytes += len(response)
            first = False
            writer.write(response)
            await writer.drain()
            if not request.keep_alive:
                return


async def run(name: str, bind: str | None, port: int, counts: Path | None) -> None:
    """Serve until SIGTERM or SIGINT."""
    server = Server(name)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await asyncio.start_server(server.serve, bind, port, backlog=BACKLOG)
    if counts is not None:  # whoever is told the counts may ask
        await counters.serve(counts, lambda: asdict(server.counts))
    await stopped.wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="HTTP server that answers with its name")
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--bind", help="address; all addresses of both families if not given")
    parser.add_argument("--counts", type=Path, help="Unix socket that tells the counts as JSON")
    args = parser.parse_args()
    asyncio.run(run(args.name, args.bind, args.port, args.counts))


if __name__ == "__main__":
    main()
