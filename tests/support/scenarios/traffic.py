"""The client's side: requests and datagrams from inside its namespace, and who answered them."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

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
    errors: list[str] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """How many got no good answer."""
        return self.sent - self.answered.total()

    def count(self, name: str, size: int) -> None:
        """Note an answer."""
        self.answered[name] += 1
        self.bytes[name] += size


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
                tally.count(_name_of(answer), len(answer))
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


def _name_of(answer: bytes) -> str:
    """Who answered; ValueError unless header and body say the same and the answer is whole."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = headers.get("x-backend", "")
    if not status.startswith("HTTP/1.1 200 ") or not name or body != f"{name}\n".encode():
        raise ValueError(f"a wrong answer: {answer[:80]!r}")
    return name


def send_datagrams(
    client: Host, address: str, port: int, count: int, progress: Progress = lambda: None
) -> Tally:
    """One datagram from each of `count` sockets, so that each is a flow of its own; then all answers."""
    tally = Tally()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        with client.enter():
            sockets = [
                stack.enter_context(socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
                for _ in range(count)
            ]
        for number, sock in enumerate(sockets):
            # Connected: an answer from another address than the one that was asked does not arrive.
            sock.connect((address, port))
            selector.register(sock, selectors.EVENT_READ, b"datagram %d" % number)
            try:
                sock.send(b"datagram %d" % number)
            except OSError as error:
                tally.errors.append(f"datagram {number}: {error}")
            tally.sent += 1
        deadline = time.monotonic() + ECHO_TIMEOUT_S
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                selector.unregister(key.fileobj)
                _take_echo(key, tally)
                progress()
    silent = tally.missing - len(tally.errors)
    if silent > 0:
        tally.errors.append(f"{silent} datagrams without an answer within {ECHO_TIMEOUT_S:g} s")
    return tally


def _take_echo(key: selectors.SelectorKey, tally: Tally) -> None:
    """Read one answer, which is `name:` and what was sent."""
    sock, sent = key.fileobj, key.data
    assert isinstance(sock, socket.socket)
    try:
        answer = sock.recv(LARGEST_ANSWER)
    except OSError as error:
        tally.errors.append(f"{sent.decode()}: {error}")
        return
    name, _, payload = answer.partition(b":")
    if payload == sent:
        tally.count(name.decode(), len(answer))
    else:
        tally.errors.append(f"{sent.decode()}: a wrong answer: {answer[:80]!r}")
