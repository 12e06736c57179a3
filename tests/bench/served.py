"""Requests that the web servers have answered, by nginx's own count, which is readable while wrk asks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from http.client import HTTPConnection

from tests.bench.peers import COUNT_PATH
from tests.bench.web import WEB_PORT, Web
from tests.support.lab import wait_for

ENOUGH = 1000
"""Requests after which all of wrk's connections are made."""
LONGEST_S = 120
_TIMEOUT_S = 10.0


class Served:
    """The servers' counts, over connections that are kept inside the servers' own namespaces."""

    def __init__(self, web: Web) -> None:
        self._connections = []
        for host in web.lab.backends:
            with host.enter():
                connection = HTTPConnection(host.v4, WEB_PORT, timeout=_TIMEOUT_S)
                connection.connect()
            self._connections.append(connection)

    def close(self) -> None:
        """Closes the connections."""
        for connection in self._connections:
            connection.close()

    def count(self) -> int:
        """Requests so far, those for the count among them."""
        return sum(_requests(connection) for connection in self._connections)

    def per_s(self, seconds: float) -> float:
        """Requests a second over the next so many seconds."""
        before, since = self.count(), time.monotonic()
        time.sleep(seconds)
        return (self.count() - before) / (time.monotonic() - since)


def _requests(connection: HTTPConnection) -> int:
    connection.request("GET", COUNT_PATH)
    # Active connections: 1 / server accepts handled requests / 1 1 1 / Reading: …
    return int(connection.getresponse().read().split(b"\n")[2].split()[2])


@contextlib.contextmanager
def asking(web: Web) -> Iterator[Served]:
    """wrk asks on kept connections until the end; begins when they are made."""
    with contextlib.closing(Served(web)) as served:
        before = served.count()
        process = web.lab.client.popen(web.wrk(LONGEST_S, close=False), log="wrk.log")
        try:

            def going() -> bool:
                process.check_running()
                return served.count() - before > ENOUGH

            wait_for(going, _TIMEOUT_S, "wrk to ask")
            yield served
        finally:
            process.stop()
