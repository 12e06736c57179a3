"""A client of web sites inside a host of the lab: HTTPS by a test's own authority, cookies, WebSockets."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path

import trustme
from websockets.sync.client import ClientConnection, connect

from tests.support.lab import Host

TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    """By names in lower case."""
    body: bytes

    @property
    def server(self) -> str:
        """Who answered; empty where the proxy did itself."""
        return self.headers.get("x-backend", "")


@dataclass
class Browser:
    """Asks one address for any site; every request has a connection of its own. Cookies are kept in
    `cookies`, whatever the site."""

    host: Host
    address: str
    context: ssl.SSLContext
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, site: str, path: str = "/", *, tls: bool = True) -> Answer:
        """OSError or http.client.HTTPException where there is no whole answer."""
        with self._connected(site, tls=tls) as sock:
            connection = http.client.HTTPConnection(site, timeout=TIMEOUT_S)
            connection.sock = sock
            headers = {"Connection": "close"}
            if self.cookies:
                headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            body = response.read()
        found = {name.lower(): value for name, value in response.getheaders()}
        for name, morsel in SimpleCookie(found.get("set-cookie", "")).items():
            self.cookies[name] = morsel.value
        return Answer(response.status, found, body)

    @contextmanager
    def websocket(self, site: str, path: str) -> Iterator[ClientConnection]:
        """A WebSocket over TLS."""
        with (
            self._connected(site, tls=True) as sock,
            connect(f"ws://{site}{path}", sock=sock, open_timeout=TIMEOUT_S) as opened,
        ):
            yield opened

    @contextmanager
    def _connected(self, site: str, *, tls: bool) -> Iterator[socket.socket]:
        port = 443 if tls else 80
        with self.host.enter():
            plain = socket.create_connection((self.address, port), timeout=TIMEOUT_S)
        with plain:
            if not tls:
                yield plain
                return
            with self.context.wrap_socket(plain, server_hostname=site) as sock:
                yield sock


def issue(directory: Path, *sites: str) -> tuple[ssl.SSLContext, Path, Path]:
    """A certificate for sites by an authority of its own: what trusts it, and the files for a server."""
    authority = trustme.CA()
    issued = authority.issue_cert(*sites)
    chain, key = directory / "site.pem", directory / "site.key"
    chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context, chain, key
