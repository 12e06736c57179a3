from asyncio import AbstractEventLoop, BaseTransport
from collections.abc import Callable, Mapping

from l7.counters import Row
from l7.http1.build import Forwarding
from l7.model import L7Config, Listener
from l7.proxy.client import ClientConnection
from l7.proxy.layout import Layout
from l7.proxy.log import AccessLog
from l7.proxy.relay import Relay
from l7.proxy.upstream import Upstream
from l7.proxy.way import Way
from l7.request import Request
from l7.routing.compiled import CompiledRoute
from l7.wire.forwarded import HasHeaders
from l7.wire.peer import Peer
from l7.wire.proxyprotocol import ProxyHeader

class Worker:
    """The worker's own state; `l7.proxy.service` fills it."""

    ways: list[Way]
    upstreams: dict[str, Upstream]
    connections: set[ClientConnection]
    relays: set[Relay]
    is_finishing: bool
    open: int
    """Connections of all listeners."""
    is_watched: bool
    """Whether `on_change` is called when a connection has gone."""
    on_change: Callable[[], object]
    row: Row
    log: AccessLog | None

    def __init__(
        self,
        loop: AbstractEventLoop,
        row: Row,
        layout: Layout,
        log: AccessLog | None,
        route: Callable[[Request, Peer], CompiledRoute | None],
        config: L7Config,
        pages: Mapping[int, tuple[bytes, bytes]],
        believe: Callable[[HasHeaders, Peer], tuple[Peer, Forwarding] | None] | None,
        chance: int,
    ) -> None: ...
    def turn(self) -> None:
        """Ends what takes too long; called twice a second."""
    def now_s(self) -> float:
        """The clock of all deadlines."""
    def page(self, status: int) -> tuple[bytes, bytes]:
        """The content type and the body of an answer of the proxy's own."""

class ListenerPart:
    """One listener, as its connections see it."""

    settings: Listener
    columns: int
    open: int
    """Connections, also those whose handshake or first bytes are waited for."""
    worker: Worker

    def __init__(
        self,
        worker: Worker,
        settings: Listener,
        columns: int,
        introduce: Callable[[BaseTransport, ProxyHeader | None], tuple[Peer, Forwarding]],
    ) -> None: ...
    def count(self, column: int) -> None:
        """Adds 1 to one of its counters."""
    def has_room(self) -> bool:
        """Whether one more connection is welcome."""
    def hold(self) -> None:
        """Takes a place."""
    def release(self) -> None:
        """Gives it back."""
    def enter(self) -> None:
        """One more connection of a client."""
    def leave(self) -> None:
        """It has gone."""
