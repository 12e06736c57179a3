"""Takes packets out of tunnels in place of a kernel that cannot, for backends of the lab.

    python -m tests.support.decapsulator --device decap0 --record seen.jsonl

Over IPv4 and IPv6 it receives IPIP (protocols 4 and 41, raw sockets) and GUE (variant 0 without options), and
writes what is inside to a TUN device, out of which the host's own stack takes it. It says `ready` when all of
that stands.

It is strict, as a judge of what the balancer sends: what is not exactly such a packet is counted as `refused`
and goes nowhere. Wrong checksums are left to the host's stack, which drops the packet.

With `--record` every packet is a line of JSON: `kind` (ipip, gue), `outer` (4, 6), `source`, `destination`,
`tos`, `ttl`, `flow_label` (IPv6), `dont_fragment` (IPIP over IPv4), `source_port` (GUE), `inner_length`, and
`inner`, the packet itself in hexadecimal. What a kind or family does not show is null.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import signal
import socket
import struct
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TextIO

from tests.support import counters

GUE_PORT = 6080
LARGEST_PACKET = 65575
RECEIVE_BUFFER = 4 << 20
BATCH = 64
# Number of the protocol in the outer header → version of the packet inside.
INNER_VERSION = {4: 4, 41: 6}

# linux/if_tun.h, linux/sockios.h, linux/if.h
TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1

# linux/in.h and linux/in6.h, where Python 3.11 has no name for them.
IP_PKTINFO = 8
IP_RECVTTL = 12
IPV6_FLOWINFO = 11
ASKED = {
    socket.AF_INET: (socket.IPPROTO_IP, (IP_PKTINFO, IP_RECVTTL, socket.IP_RECVTOS)),
    socket.AF_INET6: (
        socket.IPPROTO_IPV6,
        (socket.IPV6_RECVPKTINFO, socket.IPV6_RECVHOPLIMIT, socket.IPV6_RECVTCLASS, IPV6_FLOWINFO),
    ),
}
CONTROL_SPACE = 256


class RefusedError(Exception):
    """What came is no packet of a tunnel as the balancer makes them."""


@dataclass(frozen=True)
class Outer:
    """The outer header, as far as the socket shows it."""

    kind: str
    outer: int
    source: str
    destination: str
    tos: int
    ttl: int
    flow_label: int | None = None
    dont_fragment: bool | None = None
    source_port: int | None = None


@dataclass
class Counts:
    """What was done so far."""

    ipip: int = 0
    gue: int = 0
    bytes: int = 0
    refused: int = 0


def parse_gue(datagram: bytes) -> tuple[int, bytes]:
    """The number of the protocol inside, and the packet inside."""
    if len(datagram) < 4:
        raise RefusedError("shorter than the header of GUE")
    first, protocol, flags = struct.unpack_from("!BBH", datagram)
    if first or flags:
        raise RefusedError("another variant, a control message, or options")
    return protocol, datagram[4:]


def parse_ipv4(packet: bytes) -> tuple[Outer, bytes]:
    """The outer header that a raw socket of IPv4 receives in front of the packet inside."""
    length = (packet[0] & 15) * 4
    source, destination = (str(ip_address(packet[at : at + 4])) for at in (12, 16))
    fragment = bool(packet[6] & 0x40)
    outer = Outer("ipip", 4, source, destination, packet[1], packet[8], dont_fragment=fragment)
    return outer, packet[length:]


def check_inner(protocol: int, inner: bytes) -> None:
    """RefusedError unless the packet is of the version that was announced."""
    if not inner or inner[0] >> 4 != INNER_VERSION.get(protocol):
        raise RefusedError("the packet inside is not of the protocol that the outer header announces")


def told(kind: str, address: tuple[str, int], control: list[tuple[int, int, bytes]]) -> Outer:
    """The outer header that the control messages tell of."""
    values = {(level, name): data for level, name, data in control}
    port = address[1] if kind == "gue" else None
    if (socket.IPPROTO_IP, IP_PKTINFO) in values:
        destination = str(ip_address(values[socket.IPPROTO_IP, IP_PKTINFO][8:12]))
        tos = values[socket.IPPROTO_IP, socket.IP_TOS][0]
        (ttl,) = struct.unpack("i", values[socket.IPPROTO_IP, socket.IP_TTL])
        return Outer(kind, 4, address[0], destination, tos, ttl, source_port=port)
    level = socket.IPPROTO_IPV6
    destination = str(ip_address(values[level, socket.IPV6_PKTINFO][:16]))
    (tos,) = struct.unpack("i", values[level, socket.IPV6_TCLASS])
    (ttl,) = struct.unpack("i", values[level, socket.IPV6_HOPLIMIT])
    # The kernel leaves the message out where traffic class and flow label are 0.
    (flow,) = struct.unpack("!I", values.get((level, IPV6_FLOWINFO), bytes(4)))
    return Outer(kind, 6, address[0], destination, tos, ttl, flow_label=flow & 0xFFFFF, source_port=port)


class Decapsulator:
    """The sockets, the device, and what passed between them."""

    def __init__(self, device: str, gue_port: int, record: TextIO | None) -> None:
        self.counts = Counts()
        self._record = record
        self._tun = open_tun(device)
        self._sockets = [
            (open_socket(family, socket.SOCK_RAW, protocol), "ipip", protocol)
            for family in ASKED
            for protocol in INNER_VERSION
        ]
        for family in ASKED:
            sock = open_socket(family, socket.SOCK_DGRAM, 0)
            sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", gue_port))
            self._sockets.append((sock, "gue", 0))

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take packets from now on."""
        for sock, kind, protocol in self._sockets:
            loop.add_reader(sock, self._receive, sock, kind, protocol)

    def _receive(self, sock: socket.socket, kind: str, protocol: int) -> None:
        for _ in range(BATCH):
            try:
                data, control, _, address = sock.recvmsg(LARGEST_PACKET, CONTROL_SPACE)
            except BlockingIOError:
                return
            try:
                if kind == "gue":
                    outer = told(kind, address, control)
                    protocol, inner = parse_gue(data)
                elif sock.family == socket.AF_INET:
                    outer, inner = parse_ipv4(data)
                else:
                    outer, inner = told(kind, address, control), data
                check_inner(protocol, inner)
                self._deliver(outer, inner)
            except RefusedError:
                self.counts.refused += 1

    def _deliver(self, outer: Outer, inner: bytes) -> None:
        # Counted and recorded first: who has the answer finds them.
        self.counts.ipip += outer.kind == "ipip"
        self.counts.gue += outer.kind == "gue"
        self.counts.bytes += len(inner)
        if self._record is not None:
            seen = {**asdict(outer), "inner_length": len(inner), "inner": inner.hex()}
            self._record.write(json.dumps(seen) + "\n")
            self._record.flush()
        try:
            os.write(self._tun, inner)
        except OSError as error:  # a header that the device does not take
            raise RefusedError(str(error)) from error


def open_tun(device: str) -> int:
    """A TUN device of this name, up; it goes with the descriptor."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH22x", device.encode(), IFF_UP))
    return tun


def open_socket(family: socket.AddressFamily, kind: socket.SocketKind, protocol: int) -> socket.socket:
    """A socket that tells what was in the outer header."""
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    if family == socket.AF_INET6 and kind == socket.SOCK_DGRAM:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    level, names = ASKED[family]
    for name in names:
        sock.setsockopt(level, name, 1)
    return sock


async def run(device: str, gue_port: int, counts: Path | None, record: Path | None) -> None:
    """Decapsulate until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    file = record.open("w") if record is not None else None
    decapsulator = Decapsulator(device, gue_port, file)
    if counts is not None:
        await counters.serve(counts, lambda: asdict(decapsulator.counts))
    decapsulator.listen(loop)
    print("ready", flush=True)
    await stopped.wait()


def main() -> None:
    """Read the command line and decapsulate."""
    parser = argparse.ArgumentParser(description="IPIP and GUE to a TUN device")
    parser.add_argument("--device", default="decap0", help="name of the TUN device that is made")
    parser.add_argument("--gue-port", type=int, default=GUE_PORT)
    parser.add_argument("--counts", type=Path, help="Unix socket that tells the counts as JSON")
    parser.add_argument("--record", type=Path, help="file that gets a line of JSON for every packet")
    args = parser.parse_args()
    asyncio.run(run(args.device, args.gue_port, args.counts, args.record))


if __name__ == "__main__":
    main()
