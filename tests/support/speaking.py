"""A client that says any bytes, and what it was answered, read by h11."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

import h11

TIMEOUT_S = 10.0


@dataclass
class Said:
    """One answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    interim: list[int] = field(default_factory=list)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    whole: bool = False
    """Whether it ended as its framing says."""

    def header(self, name: str) -> str | None:
        """The values of a header, joined."""
        values = [value for key, value in self.headers if key == name]
        return ", ".join(values) if values else None


@dataclass
class Conversation:
    """All that a connection was answered, and how it ended."""

    answers: list[Said]
    end: str
    """`closed`, `reset` or `open` (nothing came for a while)."""
    garbage: bytes = b""
    """What no answer explains."""

    @property
    def statuses(self) -> list[int]:
        """Of the answers."""
        return [answer.status for answer in self.answers]


def speak(
    endpoint: tuple[str, int],
    data: bytes,
    methods: Sequence[str] = ("GET",),
    *,
    half_close: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> Conversation:
    """Sends `data` on a connection of its own and reads until it ends; `methods` are those of its requests.

    `half_close` says the end of what is sent at once, as `nc -N` does.
    """
    with socket.create_connection(endpoint, timeout=timeout_s) as sock:
        end, received = "closed", bytearray()
        try:
            sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
        except ConnectionError:
            end = "reset"
        try:
            while piece := sock.recv(1 << 16):
                received += piece
        except TimeoutError:
            end = "open"
        except ConnectionError:
            end = "reset"
    answers, garbage = read_answers(bytes(received), methods)
    return Conversation(answers, end, garbage)


def read_answers(data: bytes, methods: Sequence[str]) -> tuple[list[Said], bytes]:
    """The answers in these bytes, and what is left behind the last one; a connection ends behind them."""
    answers: list[Said] = []
    for method in methods:
        if not data:
            break
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(data)
        connection.receive_data(b"")
        interim: list[int] = []
        said: Said | None = None
        try:
            while said is None or not said.whole:
                event = connection.next_event()
                if isinstance(event, h11.InformationalResponse):
                    interim.append(event.status_code)
                elif isinstance(event, h11.Response):
                    said = Said(event.status_code, _text(event.headers), interim=interim)
                    answers.append(said)
                elif isinstance(event, h11.Data) and said:
                    said.body += event.data
                elif isinstance(event, h11.EndOfMessage) and said:
                    said.trailers = _text(event.headers)
                    said.whole = True
                else:
                    break
        except h11.RemoteProtocolError:
            return answers, b"" if said else data
        data = connection.trailing_data[0]
    return answers, data


def _text(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
