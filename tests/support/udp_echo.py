"""A UDP echo server that says who it is: `hello` is answered with `b1:hello`.

    python -m tests.support.udp_echo --name b1 --port 7

An answer leaves from the address that was asked, also when the host has several (a virtual address on lo),
and the server counts datagrams, the endpoints they came from, and the bytes that it sent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import counters

LARGEST_DATAGRAM = 65535
BATCH = 64
RECEIVE_BUFFER = 4 << 20
# linux/in.h; Python 3.11 has no name for it.
IP_PKTINFO = 8
PKTINFO4 = (socket.IPPROTO_IP, IP_PKTINFO)
PKTINFO6 = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)


@dataclass
class Counts:
    """What the server did so far; `peers` are (address, port) that asked."""

    name: str
    datagrams: int = 0
    bytes: int = 0
    peers: set[tuple[str, int]] = field(default_factory=set)

    def as_numbers(self) -> dict[str, int | str]:
        """The counts as JSON has them."""
        return {
            "name": self.name,
            "datagrams": self.datagrams,
            "bytes": self.bytes,
            "peers": len(self.peers),
        }


def bind(family: socket.AddressFamily, port: int) -> socket.socket:
    """A socket on all addresses of a family that tells which of them was asked."""
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        sock.bind(("::", port))
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        sock.bind(("0.0.0.0", port))
    return sock


def reply_from(control: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """The control message that sends from the address asked, by whichever interface the route says."""
    for level, kind, data in control:
        if (level, kind) == PKTINFO4:  # ifindex, address to reply from, address asked
            return [(level, kind, bytes(4) + data[4:])]
        if (level, kind) == PKTINFO6:  # address, ifindex
            return [(level, kind, data[:16] + bytes(4))]
    return []


def answer(sock: socket.socket, counts: Counts) -> None:
    """Answer what has arrived, a batch at most; a reply that cannot leave is lost, as UDP may be."""
    for _ in range(BATCH):
        try:
            payload, control, _, peer = sock.recvmsg(LARGEST_DATAGRAM, socket.CMSG_SPACE(32))
        except BlockingIOError:
            return
        except ConnectionError:  # an earlier reply found nobody
            continue
        reply = counts.name.encode() + b":" + payload
        counts.datagrams += 1
        counts.bytes += len(reply)
        counts.peers.add(peer[:2])
        with contextlib.suppress(OSError):
            sock.sendmsg([reply], reply_from(control), 0, peer)


async def run(name: str, port: int, path: Path | None) -> None:
    """Serve until SIGTERM or SIGINT."""
    counts = Counts(name)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if path is not None:
        await counters.serve(path, counts.as_numbers)
    with contextlib.ExitStack() as sockets:
        for family in (socket.AF_INET, socket.AF_INET6):
            sock: Any = sockets.enter_context(bind(family, port))
            loop.add_reader(sock, answer, sock, counts)
        await stopped.wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="UDP echo server that answers `name:payload`")
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=7)
    parser.add_argument("--counts", type=Path, help="Unix socket that tells the counts as JSON")
    args = parser.parse_args()
    asyncio.run(run(args.name, args.port, args.counts))


if __name__ == "__main__":
    main()
