"""Connections that are kept open, so that there is something to count."""

from __future__ import annotations

import http.client
from collections.abc import Iterable

from tests.integration.gateway import VIP4
from tests.support.lab import Lab
from tests.support.scenarios.balancer import Balancer

LEARNED = 8
"""Requests after which the kernel has learned a connection, where it learns."""

Held = tuple[str, http.client.HTTPConnection]
"""The backend that a connection is to, and the connection."""


def hold(lab: Lab) -> Held:
    """A connection that stays open and was used as often as it takes to be learned."""
    with lab.client.enter():
        connection = http.client.HTTPConnection(VIP4, timeout=5)
        names = {ask_again(connection) for _ in range(LEARNED)}
    (name,) = names
    return name, connection


def ask_again(connection: http.client.HTTPConnection) -> str:
    """One more request; the name of the backend that answered."""
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()
    return answer.headers["X-Backend"]


def close_all(held: Iterable[Held]) -> None:
    for _, connection in held:
        connection.close()


def opened(running: Balancer, service: str) -> dict[str, int]:
    """Open connections by backend."""
    return {row["backend"]: row["open"] for row in running.backends() if row["service"] == service}
