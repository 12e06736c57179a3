"""Clients that keep asking while something is done to the proxy: strict ones, which forgive nothing.

A kept connection that ends without `Connection: close` in the answer before, an answer that is cut off or
comes with another status than 200, a connection that is refused or reset: each is a failure.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.lab import wait_for

TIMEOUT_S = 15.0


class CutOffError(Exception):
    """A connection ended within an answer or before it."""


@dataclass
class Load:
    """What the clients have seen so far."""

    answered: Counter[str] = field(default_factory=Counter)
    """By X-Backend."""
    failures: list[str] = field(default_factory=list)
    connections: int = 0

    @property
    def requests(self) -> int:
        """Answers so far."""
        return sum(self.answered.values())

    def wait_more(self, count: int) -> None:
        """Waits for so many more answers."""
        goal = self.requests + count
        wait_for(lambda: self.requests >= goal or self.failures, TIMEOUT_S, f"{count} more answers")


@contextmanager
def clients(
    address: str, port: int, *, count: int = 8, path: str = "/", per_connection: int = 50
) -> Iterator[Load]:
    """Clients that ask again and again until the block ends, `per_connection` times a connection."""
    load, stop = Load(), threading.Event()
    lock = threading.Lock()

    def ask() -> None:
        while not stop.is_set():
            try:
                _use_connection(address, port, path, per_connection, load, lock, stop)
            except (OSError, CutOffError) as error:
                with lock:
                    load.failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join(TIMEOUT_S)


def _use_connection(
    address: str, port: int, path: str, times: int, load: Load, lock: threading.Lock, stop: threading.Event
) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
    with socket.create_connection((address, port), timeout=TIMEOUT_S) as sock, sock.makefile("rb") as stream:
        with lock:
            load.connections += 1
        for number in range(times):
            if stop.is_set():
                return
            sock.sendall(request)
            status = stream.readline()
            if not status.endswith(b"\r\n"):
                raise CutOffError(f"request {number + 1} of a connection was not answered")
            headers = {}
            while (line := stream.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            length = int(headers.get("content-length", "0"))
            if len(stream.read(length)) != length:
                raise CutOffError(f"request {number + 1} of a connection was cut off")
            with lock:
                if status.split()[1] != b"200":
                    load.failures.append(status.decode().strip())
                load.answered[headers.get("x-backend", "?")] += 1
            if headers.get("connection", "").lower() == "close":
                return
