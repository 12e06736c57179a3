"""Ways to the backends for TCP, by address and port, and how each is held up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from tests.bench import ours, peers
from tests.support.lab import Lab

DIRECT, DNAT, HAPROXY, STREAM = "direct", "conntrack-dnat", "haproxy", "nginx-stream"

Up = Callable[[Lab, Sequence[str]], AbstractContextManager[object]]
"""Holds a side up in a lab, for these backends (`address:port`); gives its process if it has one."""


@dataclass(frozen=True, slots=True)
class Side:
    """A way to the backends. `to_vip` says whether the client aims at the VIP, or at the first backend."""

    name: str
    up: Up
    to_vip: bool = True


def balanced(name: str, datapath: str, port: int, workers: int | str = "auto") -> Side:
    """The daemon with a service at this port of the VIP."""

    def up(lab: Lab, backends: Sequence[str]) -> AbstractContextManager[object]:
        service = ours.Service("tcp", f"{ours.VIP}:{port}/tcp", backends)
        return ours.daemon(lab, datapath, [service], workers=workers)

    return Side(name, up)


def direct(name: str = DIRECT) -> Side:
    """Plain routing."""
    return Side(name, lambda lab, backends: nullcontext(), to_vip=False)


def dnat(port: int) -> Side:
    """Connection tracking."""
    return Side(DNAT, lambda lab, backends: peers.dnat(lab, ours.VIP, backends, port))


def haproxy(port: int) -> Side:
    """HAProxy in TCP mode."""
    return Side(HAPROXY, lambda lab, backends: peers.haproxy(lab, ours.VIP, backends, port))


def nginx_stream() -> Side:
    """nginx's stream proxy, at port 80."""
    return Side(STREAM, lambda lab, backends: peers.nginx_stream(lab, ours.VIP, backends))
