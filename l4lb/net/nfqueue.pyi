"""The native queue loop (ext/l4lb/net/nfqueue.pyx)."""

from typing import TypedDict

from l4lb.dataplane.balancer import Balancer

class PacketFields(TypedDict):
    """The fields of one queued packet."""

    id: int
    mark: int
    length: int
    checksum_ready: bool
    gso: bool
    payload: bytes

def parse_messages(datagram: bytes) -> list[tuple[str, PacketFields | None]]:
    """(kind, fields) of each netlink message; fields where the kind is "packet"."""

class QueueLoop:
    """Serves one queue through a configured socket until it is told to stop.

    `copy_range` is what the socket copies of each packet, in bytes; `rewrite` says that every packet comes
    whole and goes back rewritten. `raw4` and `raw6` are raw sockets for what is sent in the place of packets,
    -1 where there is none: then it is counted as `send_failed`. Loops may share a balancer.
    """

    def __init__(
        self,
        balancer: Balancer,
        fd: int,
        *,
        queue: int,
        copy_range: int,
        rewrite: bool,
        raw4: int = -1,
        raw6: int = -1,
    ) -> None: ...
    def run(self) -> None:
        """Serve the queue in this thread until `stop`. OSError when the socket fails."""
    def stop(self) -> None:
        """Make `run` return after its batch; the socket must be woken as well."""
    def counts(self) -> dict[str, int]:
        """Counters since the start, by name."""
