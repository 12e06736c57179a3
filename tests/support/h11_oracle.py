"""What h11 makes of a message: the second opinion on HTTP/1."""

from __future__ import annotations

from dataclasses import dataclass

import h11

LIMIT = 1 << 20


@dataclass(frozen=True)
class Opinion:
    """`error` is set where h11 refuses; a head that is not complete has neither error nor `line`."""

    error: str | None = None
    line: tuple[object, ...] | None = None
    """Method, target and version; or status and version."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Names in lower case."""
    payload: bytes = b""
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    is_over: bool = False
    rest: bytes = b""
    """What stands behind the message, where that is over."""


def opinion_of_request(data: bytes) -> Opinion:
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    return _read(server, data)


def opinion_of_response(data: bytes, method: bytes = b"GET") -> Opinion:
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=LIMIT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    return _read(client, data)


def _read(connection: h11.Connection, data: bytes) -> Opinion:
    connection.receive_data(data)
    line: tuple[object, ...] | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    payload = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            return Opinion(str(error), line, headers, payload)
        if isinstance(event, h11.Request):
            line = (event.method, event.target, event.http_version)
            headers = tuple(event.headers)
        elif isinstance(event, h11.InformationalResponse | h11.Response):
            line = (event.status_code, event.http_version)
            headers = tuple(event.headers)
            if isinstance(event, h11.InformationalResponse):
                return Opinion(None, line, headers)
        elif isinstance(event, h11.Data):
            payload += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            rest = connection.trailing_data[0]
            return Opinion(None, line, headers, payload, tuple(event.headers), True, rest)
        else:
            return Opinion(None, line, headers, payload)
