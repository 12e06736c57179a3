"""The peer `netfilterqueue`: the package with the least that a callback can do.

`python -m tests.bench.accept_all QUEUE LENGTH`; prints "ready" when the queue is bound.
"""

from __future__ import annotations

import contextlib
import sys

from netfilterqueue import COPY_PACKET, NetfilterQueue, Packet

from l4lb.net.queue import COPY_HEADERS

COPY = COPY_HEADERS  # as the mark datapath has them copied
BYTES_A_PACKET = 1300  # of the receive buffer, so that the queue and not the buffer is the limit


def accept(packet: Packet) -> None:
    """The empty callback: the packet goes on as it came."""
    packet.accept()


def main() -> None:
    """Serves until it is ended."""
    number, length = map(int, sys.argv[1:])
    queue = NetfilterQueue()
    queue.bind(number, accept, length, COPY_PACKET, COPY, length * BYTES_A_PACKET)
    print("ready", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        queue.run()


if __name__ == "__main__":
    main()
