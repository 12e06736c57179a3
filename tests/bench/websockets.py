"""Many idle WebSockets: a client that opens them and a server that echoes, programs of their own.

python -m tests.bench.websockets serve PORT
python -m tests.bench.websockets open PORT COUNT

The client opens COUNT connections, says how long it took, waits for a line, sends a frame on each and says
how many came back; a second line ends it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import cast

import uvloop

PATH = "/ws"
_AT_ONCE = 200
_TIMEOUT_S = 60.0
_ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
_REQUEST = (
    f"GET {PATH} HTTP/1.1\r\nHost: www.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()
_ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: " + _ACCEPT + b"\r\n\r\n"
)
_FRAME = b"\x81\x84\0\0\0\0ping"
"""A masked text frame; a mask of zeros leaves its text as it is."""


class _Echo(asyncio.Protocol):
    """Answers the upgrade, then sends back what comes."""

    def __init__(self) -> None:
        self._head: bytes | None = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._head is None:
            self._transport.write(data)
            return
        self._head += data
        if self._head.endswith(b"\r\n\r\n"):
            self._head = None
            self._transport.write(_ANSWER)


class _Opener(asyncio.Protocol):
    """A WebSocket: `opened`, then `echoed`."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.echoed: asyncio.Future[None] = loop.create_future()
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(_REQUEST)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self.opened.done():
            head, end, self._received = self._received.partition(b"\r\n\r\n")
            if not end:
                self._received = head
            elif head.startswith(b"HTTP/1.1 101 ") and _ACCEPT in head:
                self.opened.set_result(None)
            else:
                self.opened.set_exception(ConnectionError(head.decode(errors="replace")))
        if self._received == _FRAME:
            self.echoed.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        for future in (self.opened, self.echoed):
            if not future.done():
                future.cancel()


async def serve(port: int) -> None:
    """Echoes until it is ended."""
    server = await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


async def open_many(port: int, count: int) -> None:
    """See the top of the file."""
    loop = asyncio.get_running_loop()
    places = asyncio.Semaphore(_AT_ONCE)

    async def open_one() -> _Opener:
        async with places:
            _, opener = await loop.create_connection(_Opener, "127.0.0.1", port)
            await opener.opened
            return opener

    async with asyncio.timeout(_TIMEOUT_S):
        since = time.monotonic()
        openers = await asyncio.gather(*(open_one() for _ in range(count)))
    print(f"{time.monotonic() - since:.3f}", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    for opener in openers:
        opener.transport.write(_FRAME)
    done, _ = await asyncio.wait([opener.echoed for opener in openers], timeout=_TIMEOUT_S)
    print(sum(not one.cancelled() for one in done), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)


def main() -> None:
    """Read the command line."""
    match sys.argv[1:]:
        case ["serve", port]:
            uvloop.run(serve(int(port)))
        case ["open", port, count]:
            uvloop.run(open_many(int(port), int(count)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
