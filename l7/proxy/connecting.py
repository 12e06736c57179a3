"""How a connection to a backend is opened: the one coroutine of the path, once for each connection."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any


async def open_connection(exchange: Any, lane: Any, make: Any) -> None:
    """Opens a connection to the backend of `lane` for `exchange`. `make(lane)` makes its protocol.

    A backend whose name has several addresses is tried at two of them. There is no time-out here: who waits
    cancels the task.
    """
    loop = asyncio.get_running_loop()
    upstream = lane.upstream
    server = lane.server
    for address, port in lane.next_endpoints():
        try:
            if upstream.context is None:
                _, protocol = await loop.create_connection(lambda: make(lane), address, port)
            else:
                _, protocol = await loop.create_connection(
                    lambda: make(lane),
                    address,
                    port,
                    ssl=upstream.context,
                    server_hostname=upstream.server_name or str(server.backend.address.host),
                )
        except (OSError, ssl.SSLError, ssl.CertificateError):
            continue
        exchange.on_connected(protocol)
        return
    exchange.on_connect_failed()
