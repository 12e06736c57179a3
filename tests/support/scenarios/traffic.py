"""The client's side: requests and datagrams from inside its namespace, and who answered them."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from tests.support.lab import Host

REQUEST_TIMEOUT_S = 5.0
ECHO_TIMEOUT_S = 5.0
LARGEST_ANSWER = 65535


@dataclass
class Tally:
    """What the client saw: answers and bytes by the name of who answered, and what went wrong."""

    sent: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    flows: Counter[str] = field(default_factory=Counter)
    """Connections, or sockets, by who answered on them; one that two answered on is counted for both."""
    errors: list[str] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """How many got no good answer."""
        return self.sent - self.answered.total()

    def count(self, name: str, size: int, answerers: set[str]) -> None:
        """Note an answer on a flow; `answerers` are those that answered on it so far."""
        self.answered[name] += 1
        self.bytes[name] += size
        self.flows[name] += name not in answerers
        answerers.add(name)

    def add(self, other: Tally) -> None:
        """Take in what another saw."""
        self.sent += other.sent
        self.answered += other.answered
        self.bytes += other.bytes
        self.flows += other.flows
        self.errors += other.errors


Progress = Callable[[], None]


def send_requests(
    client: Host, address: str, port: int, count: int, progress: Progress = lambda: None
) -> Tally:
    """HTTP requests one after the other, each on a connection of its own."""
    tally = Tally()
    request = f"GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode()
    with client.enter():
        for number in range(count):
            tally.sent += 1
            try:
                answer = _exchange(address, port, request)
                tally.count(_name_of(answer), len(answer), set())
            except (OSError, ValueError) as error:
                tally.errors.append(f"request {number}: {error}")
            progress()
    return tally


def _exchange(address: str, port: int, request: bytes) -> bytes:
    """Send a request and read until the server closes."""
    with socket.create_connection((address, port), timeout=REQUEST_TIMEOUT_S) as sock:
        sock.sendall(request)
        parts = []
        while part := sock.recv(LARGEST_ANSWER):
            parts.append(part)
    return b"".join(parts)


def send_kept_requests(
    client: Host, address: str, port: int, connections: int, each: int, while_open: Callable[[], None]
) -> Tally:
    """HTTP requests, `each` on every connection, in turn; `while_open` is called when all had theirs."""
    tally = Tally(sent=connections * each)
    request = f"GET / HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        opened: dict[socket.socket, tuple[BinaryIO, set[str]]] = {}
        with client.enter():
            for number in range(connections):
                try:
                    sock = stack.enter_context(
                        socket.create_connection((address, port), timeout=REQUEST_TIMEOUT_S)
                    )
                except OSError as error:
                    tally.errors.append(f"connection {number}: {error}")
                else:
                    opened[sock] = stack.enter_context(sock.makefile("rb")), set()
        for turn in range(each):
            for sock, (stream, answerers) in list(opened.items()):
                try:
                    sock.sendall(request)
                    answer = _read_answer(stream)
                    tally.count(_name_of(answer), len(answer), answerers)
                except (OSError, ValueError) as error:
                    tally.errors.append(f"request {turn} of a connection: {error}")
                    del opened[sock]
        while_open()
    return tally


def _read_answer(stream: BinaryIO) -> bytes:
    """One answer on a connection that is kept; what is missing at its end is left to `_name_of`."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return head
        head += line
    return head + stream.read(_body_size(head))


async def receive_answer(reader: asyncio.StreamReader) -> tuple[str, int]:
    """Who answered on a kept connection, and the bytes of the answer. OSError, EOFError, ValueError."""
    head = await reader.readuntil(b"\r\n\r\n")
    answer = head + await reader.readexactly(_body_size(head))
    return _name_of(answer), len(answer)


def _name_of(answer: bytes) -> str:
    """Who answered; ValueError unless header and body say the same and the answer is whole."""
    head, _, body = answer.partition(b"\r\n\r\n")
    name = _headers(head).get("x-backend", "")
    if not head.startswith(b"HTTP/1.1 200 ") or not name or body != f"{name}\n".encode():
        raise ValueError(f"a wrong answer: {answer[:80]!r}")
    return name


def _body_size(head: bytes) -> int:
    """Bytes that follow the header of an answer."""
    return int(_headers(head).get("content-length", "0"))


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def send_datagrams(
    client: Host,
    address: str,
    port: int,
    count: int,
    progress: Progress = lambda: None,
    *,
    per_socket: int = 1,
) -> Tally:
    """A datagram from each of `count` sockets, so that each is a flow of its own; then all answers.

    With `per_socket` this is done so many times over the same sockets.
    """
    tally = Tally()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as stack:
        with client.enter():
            sockets = [
                stack.enter_context(socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
                for _ in range(count)
            ]
        answerers: list[set[str]] = [set() for _ in sockets]
        for sock in sockets:
            # Connected: an answer from another address than the one that was asked does not arrive.
            sock.connect((address, port))
        for turn in range(per_socket):
            _send_round(sockets, turn * count, answerers, tally, progress)
    silent = tally.missing - len(tally.errors)
    if silent > 0:
        tally.errors.append(f"{silent} datagrams without an answer within {ECHO_TIMEOUT_S:g} s")
    return tally


def _send_round(
    sockets: list[socket.socket], first: int, answerers: list[set[str]], tally: Tally, progress: Progress
) -> None:
    """One datagram from each socket, and the answers; the numbers in them go on from `first`."""
    with selectors.DefaultSelector() as selector:
        for number, (sock, names) in enumerate(zip(sockets, answerers, strict=True), start=first):
            sent = b"datagram %d" % number
            selector.register(sock, selectors.EVENT_READ, (sent, names))
            try:
                sock.send(sent)
            except OSError as error:
                tally.errors.append(f"datagram {number}: {error}")
            tally.sent += 1
        deadline = time.monotonic() + ECHO_TIMEOUT_S
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                selector.unregister(key.fileobj)
                _take_echo(key, tally)
                progress()


def _take_echo(key: selectors.SelectorKey, tally: Tally) -> None:
    """Read one answer, which is `name:` and what was sent."""
    sock = key.fileobj
    sent, answerers = key.data
    assert isinstance(sock, socket.socket)
    try:
        answer = sock.recv(LARGEST_ANSWER)
    except OSError as error:
        tally.errors.append(f"{sent.decode()}: {error}")
        return
    name, _, payload = answer.partition(b":")
    if payload == sent:
        tally.count(name.decode(), len(answer), answerers)
    else:
        tally.errors.append(f"{sent.decode()}: a wrong answer: {answer[:80]!r}")
