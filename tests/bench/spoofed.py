"""A flood with forged sources (flood.c), and what the hosts of a lab do about it.

The sources are those of 10.64.0.0/10. Every host has a route back to them, for without one a server would
refuse them too cheaply; but whoever answers, answers into a rule that drops it: what is measured is the way
of the flood, on every side the same, and not the way of its answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.senders import Sender, build, sending
from tests.support.lab import Host, Lab

SOURCES = "10.64.0.0/10"
RATE = 100_000
"""Packets a second."""
UDP_PORT = 9000
LONGEST_S = 60.0
"""After which a flood ends by itself, if nobody ends it."""
WARM_S = 0.3

_URGENT = ["chrt", "--fifo", "1"]
_ANSWERERS = f"""
table ip flood {{
    chain prerouting {{
        type filter hook prerouting priority -450; policy accept;
        ip saddr {SOURCES} udp dport {UDP_PORT} drop
    }}
    chain output {{
        type filter hook output priority -450; policy accept;
        ip daddr {SOURCES} drop
    }}
}}
"""


def prepare(lab: Lab) -> None:
    """Compiles the sender, gives the gateway its route to the sources and the backends their rule."""
    build("flood")
    lab.gateway.run(["ip", "route", "add", SOURCES, "via", lab.client.v4])
    for host in lab.backends:
        swallow_answers(host)


def swallow_answers(host: Host) -> None:
    """What the host answers to forged sources is dropped where it begins, and so are their datagrams."""
    host.run(["sysctl", "-qw", "net.ipv4.tcp_syncookies=1"])
    host.run(["nft", "-f", "-"], input=_ANSWERERS)


@dataclass(slots=True)
class Flood:
    """A flood that goes on; `per_s` is what was reached, once it is over."""

    sender: Sender
    per_s: float = 0.0


@contextlib.contextmanager
def flood(lab: Lab, address: str, port: int, *, udp: bool = False) -> Iterator[Flood]:
    """SYNs, or datagrams, from the client to this endpoint until the end, at `RATE` when it begins.

    It goes before all else, as what comes from a network card does.
    """
    argv = [str(build("flood")), "-p", str(port), "-r", str(RATE), "-d", str(LONGEST_S), "-w", str(WARM_S)]
    with sending(lab.client, [*_URGENT, *argv, *(["-u"] if udp else []), address]) as sender:
        sender.wait_begin()
        running = Flood(sender)
        yield running
        sender.terminate()
        sent, seconds = sender.wait_end()
        running.per_s = sent / seconds
