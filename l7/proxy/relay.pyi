from asyncio import Protocol, Transport
from collections.abc import Callable

from l7.proxy.worker import Worker

class Relay:
    """Two transports that are one connection. `on_end(relay)` is called when both have gone."""

    end: int
    on_end: Callable[[Relay], object] | None
    client: RelaySide
    backend: RelaySide
    from_client: int
    from_backend: int

    def __init__(self, worker: Worker, idle_s: float, on_end: Callable[[Relay], object] | None) -> None: ...
    def join(
        self,
        client: Transport,
        backend: Transport,
        is_client_full: bool = False,
        is_backend_full: bool = False,
    ) -> None:
        """Takes the transports over. The flags say whose buffer is above its mark."""
    def close(self, end: int = ...) -> None:
        """Ends it now."""

class RelaySide(Protocol):
    """asyncio's Protocol of one side."""

    def take_over(self, transport: Transport) -> None:
        """Becomes the protocol of a transport, unless that is lost already."""
    def begin(self, other_is_full: bool) -> None:
        """Hands on what came early, and reads."""
