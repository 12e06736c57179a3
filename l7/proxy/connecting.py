"""How a connection to a backend is opened: the one coroutine of the path, once for each connection."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Protocol, cast

from l7.proxy.backend import BackendConnection
from l7.proxy.upstream import Lane
from l7.wire.peer import Peer, read_address
from l7.wire.proxyprotocol import build_header


class Waiting(Protocol):
    """A request that waits for a connection."""

    def on_connected(self, connection: BackendConnection) -> None:
        """It is open."""

    def on_connect_failed(self) -> None:
        """It cannot be opened."""


async def open_connection(request: Waiting, lane: Lane, peer: Peer) -> None:
    """Opens a connection to the backend of `lane`, of which `peer` is the client.

    A backend whose name has several addresses is tried at two of them. There is no time-out here: who waits
    cancels the task.
    """
    for address, port in lane.next_endpoints():
        try:
            connection = await _open(lane, peer, address, port)
        except (OSError, ssl.SSLError, ssl.CertificateError):
            continue
        request.on_connected(connection)
        return
    request.on_connect_failed()


async def _open(lane: Lane, peer: Peer, address: str, port: int) -> BackendConnection:
    loop = asyncio.get_running_loop()
    upstream = lane.upstream
    make = cast(Callable[[], asyncio.Protocol], lambda: BackendConnection(lane))
    name = None
    if upstream.context is not None:
        name = upstream.server_name or str(lane.server.backend.address.host)
    if not upstream.proxy_protocol:
        _, connection = await loop.create_connection(
            make, address, port, ssl=upstream.context, server_hostname=name
        )
        return cast(BackendConnection, connection)
    # The header comes before everything, TLS included.
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, (address, port))
        await loop.sock_sendall(sock, _greeting(upstream.proxy_protocol, peer))
        _, connection = await loop.create_connection(
            make, sock=sock, ssl=upstream.context, server_hostname=name
        )
    except BaseException:
        sock.close()
        raise
    return cast(BackendConnection, connection)


def _greeting(version: int, peer: Peer) -> bytes:
    return build_header(
        version,
        (read_address(peer.address), peer.port),
        (read_address(peer.local_address), peer.local_port),
    )
