"""Asks the daemon over its admin socket."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from l4lb.errors import CapabilityError, ConfigError, L4lbError, NoDaemonError

TOTAL = "X-Total-Count"
"""The header of a page that says how many rows there are, on this page or not."""
_TIMEOUT_S = 30
_BY_EXIT_CODE = {error.exit_code: error for error in (L4lbError, ConfigError, CapabilityError, NoDaemonError)}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Client:
    """One request a call. NoDaemonError where no one answers; the daemon's own errors are raised here."""

    def __init__(self, path: Path, program: str = "l4lb") -> None:
        self.path = path
        self.program = program

    def get(self, route: str, **query: str) -> Any:
        """The JSON answer of `route`."""
        with self._request("GET", route, query) as response:
            return json.loads(response.read())

    def text(self, route: str) -> str:
        """The answer of `route` as it is."""
        with self._request("GET", route, {}) as response:
            return response.read().decode()

    def rows(self, route: str, **query: str) -> Iterator[dict[str, Any]]:
        """The rows of `route`, as they arrive."""
        with self._request("GET", route, query) as response:
            for line in response:
                yield json.loads(line)

    @contextmanager
    def page(self, route: str, **query: str) -> Iterator[tuple[int, Iterator[dict[str, Any]]]]:
        """How many rows the query lets through in all, and those of the page, as they arrive."""
        with self._request("GET", route, query) as response:
            yield int(response.headers[TOTAL]), map(json.loads, response)

    def post(self, route: str, body: Any = None) -> Any:
        """The JSON answer of an action; `body` is sent as JSON."""
        with self._request("POST", route, {}, json.dumps(body or {})) as response:
            return json.loads(response.read())

    @contextmanager
    def _request(
        self, method: str, route: str, query: dict[str, str], body: str | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        target = f"{route}?{urlencode(query)}" if query else route
        with (
            closing(_UnixConnection(self.path)) as connection,
            self._ask(connection, method, target, body) as response,
        ):
            if response.status >= 400:
                raise _error(response)
            yield response

    def _ask(
        self, connection: _UnixConnection, method: str, target: str, body: str | None
    ) -> http.client.HTTPResponse:
        try:
            connection.request(method, target, body)
            return connection.getresponse()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NoDaemonError(
                f"{self.path}: no daemon answers; start one with `{self.program} run`"
            ) from error
        except PermissionError as error:
            raise CapabilityError(f"{self.path}: may not be used; run as root or as its group") from error
        except (OSError, http.client.HTTPException) as error:
            raise L4lbError(f"{self.path}: the daemon did not answer: {error}") from error


def _error(response: http.client.HTTPResponse) -> L4lbError:
    try:
        body = json.loads(response.read())
        kind = _BY_EXIT_CODE.get(body["exit_code"], L4lbError)
        return kind(body["error"])
    except (ValueError, KeyError, TypeError):
        return L4lbError(f"the daemon answered with status {response.status}")
