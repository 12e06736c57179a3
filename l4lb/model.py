"""What an operator configures, as frozen values. Plain data: no behaviour, no I/O.

`l4lb.control.config` makes these from YAML; `l4lb.control.expand` turns them into what the packet
path reads. Times are seconds, sizes are bytes, addresses are `ipaddress` objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address

FIRST_PORT = 1
LAST_PORT = 65535


class Protocol(IntEnum):
    """IP protocol numbers of the protocols that are balanced."""

    TCP = 6
    UDP = 17


class Datapath(StrEnum):
    """Who carries a decision out. `AUTO` picks the best that the host's kernel allows."""

    AUTO = "auto"
    MARK = "mark"
    REWRITE = "rewrite"
    REFERENCE = "reference"


class Forward(StrEnum):
    """How a packet reaches its backend."""

    NAT = "nat"


class Scheduler(StrEnum):
    """How a backend is chosen for a new flow."""

    ROUND_ROBIN = "round-robin"
    WEIGHTED_ROUND_ROBIN = "weighted-round-robin"
    LEAST_CONNECTIONS = "least-connections"
    WEIGHTED_LEAST_CONNECTIONS = "weighted-least-connections"
    SOURCE_HASH = "source-hash"
    MAGLEV = "maglev"
    POWER_OF_TWO = "power-of-two"


@dataclass(frozen=True, slots=True)
class Listen:
    """One address, protocol and inclusive port range that a service answers on.

    A single port has `first_port == last_port`; any port is 1 to 65535.
    """

    address: Address
    protocol: Protocol
    first_port: int
    last_port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        if (self.first_port, self.last_port) == (FIRST_PORT, LAST_PORT):
            ports = "any"
        elif self.first_port == self.last_port:
            ports = str(self.first_port)
        else:
            ports = f"{self.first_port}-{self.last_port}"
        return f"{host}:{ports}/{self.protocol.name.lower()}"


@dataclass(frozen=True, slots=True)
class Backend:
    """A server behind a service. `port` None keeps the port that the client addressed."""

    address: Address
    port: int | None
    weight: int = 1

    @property
    def name(self) -> str:
        """`10.2.0.11:8080`, `[2001:db8::1]:80`, or the bare address where the port is kept.

        The name is the backend's identity: consistent hashing and counters are keyed by it.
        """
        if self.port is None:
            return str(self.address)
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Service:
    """A virtual service: where clients connect to, and who answers them."""

    name: str
    listens: tuple[Listen, ...]
    backends: tuple[Backend, ...]
    forward: Forward = Forward.NAT
    scheduler: Scheduler = Scheduler.MAGLEV


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """The kernel queues between the rules and the workers."""

    first: int = 0
    """Number of the first NFQUEUE; worker n reads queue `first + n`."""
    length: int = 16384
    """Packets that the kernel holds for one worker before it overflows."""


@dataclass(frozen=True, slots=True)
class FlowSettings:
    """The flow table."""

    capacity: int = 1 << 18
    """Flows remembered over all workers. Beyond it new flows are hashed without state."""


@dataclass(frozen=True, slots=True)
class L4Config:
    """The `l4` section of the configuration file."""

    services: tuple[Service, ...]
    datapath: Datapath = Datapath.AUTO
    workers: int | None = None
    """Number of workers, or None for one a processor."""
    queue: QueueSettings = field(default_factory=QueueSettings)
    flows: FlowSettings = field(default_factory=FlowSettings)
    hash_key: bytes | None = field(default=None, repr=False)
    """16 bytes shared by gateways that shall choose alike, or None for a key of this machine."""
    vip_interface: str | None = "lo"
    """Where the VIPs are added while the balancer runs, or None to leave addresses alone."""
