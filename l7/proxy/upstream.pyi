from collections.abc import Sequence
from ssl import SSLContext

from l7.balancing.pool import Pool
from l7.balancing.server import Server
from l7.balancing.sessions import Sessions
from l7.proxy.backend import BackendConnection
from l7.proxy.layout import Layout
from l7.proxy.worker import Worker

class Upstream:
    """A pool of one worker. `context` speaks TLS to its backends, or is None."""

    pool: Pool
    context: SSLContext | None
    server_name: str | None
    proxy_protocol: int
    sessions: Sessions | None

    def __init__(self, worker: Worker, pool: Pool, layout: Layout, context: SSLContext | None) -> None: ...
    def open_lane(self, server: Server, columns: int) -> None:
        """Gives a backend what its connections need."""

class Lane:
    """The way to one backend."""

    upstream: Upstream
    server: Server
    columns: int
    idle: list[BackendConnection]

    def next_endpoints(self) -> Sequence[tuple[str, int]]:
        """Two of the addresses that the backend stands for, those whose turn it is."""
    def close(self) -> None:
        """Closes its kept connections, and keeps none any more."""
    def close_kept(self) -> None:
        """Closes its kept connections."""
