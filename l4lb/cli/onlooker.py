"""What `l4lb trace` and `l4lb capture` share: packets as they come in, with what the core says of them.

Packets are copied by the kernel to a socket of this command, beside their way through the balancer, and the
daemon is asked a moment later. So nothing is paid while nobody watches, and what is not read in time is lost
to the watcher only.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any, TypeVar

import click

from l4lb.control.endpoint import parse_listen
from l4lb.dataplane.decision import Reason
from l4lb.dataplane.icmp_parse import IpPacket, read_ip
from l4lb.errors import ConfigError
from l4lb.model import Network, Protocol
from l4lb.net.client import Client
from l4lb.net.questions import MAX_PACKETS, pack_packets
from l4lb.net.sniffer import Seen, Sniffer

Json = dict[str, Any]
Ranges = dict[tuple[bytes, int], list[tuple[int, int]]]
"""Inclusive port ranges by address and protocol."""
_TURN_S = 0.1
"""Packets are gathered for so long before the daemon is asked about them."""
_SETTLED_S = 0.02
"""A packet that was seen needs so long until it has been decided, with a full queue before it."""
_SERVICES_EVERY_S = 5.0
_REASONS = ("denied", *(reason.name.lower() for reason in Reason))
_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Wish:
    """What shall be seen. `rate` are packets a second that are looked at, `seconds` None is no end."""

    client: Network | None = None
    service: str | None = None
    backend: str | None = None
    reason: str | None = None
    count: int | None = None
    rate: int = 1000
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A packet with its endpoints and its decision (`l4lb.cli.decisions`)."""

    packet: Seen
    ip: IpPacket
    decision: Json

    def row(self) -> Json:
        """For programs."""
        protocol = Protocol(self.ip.protocol).name.lower()
        listen = _endpoint(self.ip.destination, self.ip.destination_port)
        return {
            "time": round(self.packet.time_s, 6),
            "interface": self.packet.interface,
            "client": _endpoint(self.ip.source, self.ip.source_port),
            "listen": f"{listen}/{protocol}",
            "length": self.packet.length,
            **self.decision,
        }


@dataclass(slots=True)
class Tally:
    """What became of the packets that came. `left_out` were not looked at: they came too fast."""

    shown: int = 0
    looked_at: int = 0
    left_out: int = 0

    def text(self) -> str:
        """For people."""
        return (
            f"{self.shown} packets shown of {self.looked_at}; {self.left_out} came too fast and were left out"
        )


@dataclass(slots=True)
class Onlooker:
    """One run of either command. `client` asks the daemon."""

    client: Client
    wish: Wish
    snap: int
    """Bytes of a packet that are kept."""
    tally: Tally = field(default_factory=Tally)
    on_left_out: Callable[[int], None] = lambda count: None
    """Called with how many more packets were left out, after each turn in which some were."""
    on_ready: Callable[[], None] = lambda: None
    """Called when packets that come from now on are seen."""

    def events(self) -> Iterator[Event | None]:
        """Packets with their decisions, as they come, until the wish is fulfilled; None after each turn.

        ConfigError for a service that there is not, NoDaemonError once the daemon is gone.
        """
        end = None if self.wish.seconds is None else time.monotonic() + self.wish.seconds
        ranges = self._read_ranges()
        while not self._is_done(end):
            lost_before = self.tally.left_out
            with closing(self._open_sniffer(ranges)) as sniffer:
                self.on_ready()
                renew = time.monotonic() + _SERVICES_EVERY_S
                while not self._is_done(end):
                    yield from self._turn(sniffer, ranges)
                    self._count_lost(lost_before + sniffer.lost())
                    yield None
                    if time.monotonic() >= renew:
                        before, ranges = ranges, self._read_ranges()
                        if ranges.keys() != before.keys():
                            break
                        renew = time.monotonic() + _SERVICES_EVERY_S

    def _read_ranges(self) -> Ranges:
        """What the daemon's services listen on by now."""
        wanted = self.wish.service
        rows = [row for row in self.client.rows("/services") if wanted in (None, row["service"])]
        if not rows and wanted is not None:
            raise ConfigError(f"--service {wanted}: there is no such service")
        ranges: Ranges = {}
        for row in rows:
            for listen in (one for text in row["listen"] for one in parse_listen(text)):
                key = listen.address.packed, int(listen.protocol)
                ranges.setdefault(key, []).append((listen.first_port, listen.last_port))
        return ranges

    def _open_sniffer(self, ranges: Ranges) -> Sniffer:
        vips = {ip_address(address) for address, _ in ranges}
        return Sniffer(vips, self.wish.client, snap=self.snap, rate=self.wish.rate)

    def _turn(self, sniffer: Sniffer, ranges: Ranges) -> Iterator[Event]:
        began = time.monotonic()
        share = max(1, round(self.wish.rate * _TURN_S))
        seen: list[tuple[Seen, IpPacket]] = []
        read = 0
        while read < share and (left := began + _TURN_S - time.monotonic()) > 0:
            for packet in sniffer.read(share - read, left):
                read += 1
                ip = read_endpoints(packet.data)
                if ip is not None and _is_to(ip, ranges):
                    seen.append((packet, ip))
        self.tally.looked_at += len(seen)
        if seen:
            time.sleep(_SETTLED_S)
        for at in range(0, len(seen), MAX_PACKETS):
            part = seen[at : at + MAX_PACKETS]
            question = pack_packets([(packet.data, packet.length) for packet, _ in part])
            decisions = self.client.post("/decisions", question)["decisions"]
            for (packet, ip), decision in zip(part, decisions, strict=True):
                if self._is_wished(decision) and not self._is_counted():
                    self.tally.shown += 1
                    yield Event(packet, ip, decision)
        if read == share:
            time.sleep(max(0.0, began + _TURN_S - time.monotonic()))

    def _is_done(self, end: float | None) -> bool:
        return self._is_counted() or (end is not None and time.monotonic() >= end)

    def _is_counted(self) -> bool:
        return self.wish.count is not None and self.tally.shown >= self.wish.count

    def _is_wished(self, decision: Json) -> bool:
        wish = self.wish
        return all(
            want is None or decision[key] == want
            for key, want in (("service", wish.service), ("backend", wish.backend), ("reason", wish.reason))
        )

    def _count_lost(self, left_out: int) -> None:
        if more := left_out - self.tally.left_out:
            self.tally.left_out = left_out
            self.on_left_out(more)


def read_endpoints(packet: bytes) -> IpPacket | None:
    """The addresses and ports of a TCP or UDP packet, or None."""
    ip = read_ip(packet, 0, len(packet))
    if not isinstance(ip, IpPacket) or ip.offset or ip.protocol not in (Protocol.TCP, Protocol.UDP):
        return None
    if ip.body + 4 > len(packet):
        return None
    source, destination = packet[ip.body : ip.body + 2], packet[ip.body + 2 : ip.body + 4]
    return replace(ip, source_port=int.from_bytes(source), destination_port=int.from_bytes(destination))


def wish_options(command: _Command) -> _Command:
    """The filters that both commands take, as one `Wish`."""
    options = (
        click.option("--client", metavar="ADDRESS[/LENGTH]", help="Only packets of this client or network."),
        click.option("--service", metavar="NAME", help="Only packets to this service."),
        click.option("--backend", metavar="BACKEND", help="Only packets that go to this backend."),
        click.option(
            "--reason",
            metavar="REASON",
            help="Only decisions for this reason, such as scheduled; see `l4lb status`.",
        ),
        click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after so many packets."),
        click.option("--seconds", type=click.FloatRange(min=0), metavar="SECONDS", help="End after so long."),
        click.option(
            "--rate",
            type=click.IntRange(1, 100_000),
            default=1000,
            show_default=True,
            help="Look at so many packets a second at most.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def make_wish(client: str | None, reason: str | None, **others: Any) -> Wish:
    """The wish of a command line; ConfigError where it makes no sense."""
    try:
        network = None if client is None else ip_network(client)
    except ValueError as error:
        raise ConfigError(f"--client {client!r}: no address or network: {error}") from error
    if reason is not None:
        reason = reason.lower().replace("-", "_")
        if reason not in _REASONS:
            raise ConfigError(f"--reason {reason}: there are {', '.join(_REASONS)}")
    return Wish(network, reason=reason, **others)


def _is_to(ip: IpPacket, ranges: Ranges) -> bool:
    found = ranges.get((ip.destination, ip.protocol), ())
    return any(first <= ip.destination_port <= last for first, last in found)


def _endpoint(address: bytes, port: int) -> str:
    host = ip_address(address)
    return f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}"


def say_ready() -> None:
    """On standard error, beside what is shown."""
    print("watching; Ctrl-C ends", file=sys.stderr, flush=True)


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM end what is inside, and what comes behind it goes on."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        yield
