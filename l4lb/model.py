"""What an operator configures, as frozen values. Plain data: no behaviour, no I/O.

`l4lb.control.config` makes these from YAML; `l4lb.control.expand` turns them into what the packet
path reads. Times are seconds, sizes are bytes, addresses are `ipaddress` objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

FIRST_PORT = 1
LAST_PORT = 65535


class Protocol(IntEnum):
    """IP protocol numbers of the protocols that are balanced."""

    TCP = 6
    UDP = 17


class Datapath(StrEnum):
    """Who carries a decision out. `AUTO` picks the best that the host's kernel allows."""

    AUTO = "auto"
    OFFLOAD = "offload"
    MARK = "mark"
    REWRITE = "rewrite"
    REFERENCE = "reference"


class Forward(StrEnum):
    """How a packet reaches its backend."""

    NAT = "nat"
    """Its destination is rewritten; answers come back through the gateway."""
    MASQUERADE = "masquerade"
    """Its source, too, is rewritten, so that answers come back wherever the backend's routes lead."""
    DSR = "dsr"
    """It keeps its destination, and the backend answers the client itself."""
    IPIP = "ipip"
    """As DSR, inside an IP packet to the backend (RFC 2003, RFC 2473)."""
    GUE = "gue"
    """As DSR, inside UDP to the backend (Generic UDP Encapsulation)."""

    @property
    def is_tunnel(self) -> bool:
        """Whether packets travel inside others."""
        return self in (Forward.IPIP, Forward.GUE)

    @property
    def answers_itself(self) -> bool:
        """Whether the backend answers the client past the gateway."""
        return self.is_tunnel or self is Forward.DSR


class OnFailure(StrEnum):
    """What becomes of a packet that the daemon did not decide: it is away, or its queue is full."""

    DROP = "drop"
    HASH = "hash"
    """The kernel hashes the client's endpoint to a backend."""
    PASS = "pass"
    """The packet goes on untouched, to the host itself."""


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
class SourceLimits:
    """What one client address may have of a service; None is no limit."""

    new_flows: int | None = None
    """Flows that it may begin in a second."""
    flows: int | None = None
    """Flows that it may have at once."""


@dataclass(frozen=True, slots=True)
class Service:
    """A virtual service: where clients connect to, and who answers them.

    Where `allow` has networks, only their clients are served; those of `deny` never are.
    """

    name: str
    listens: tuple[Listen, ...]
    backends: tuple[Backend, ...]
    forward: Forward = Forward.NAT
    scheduler: Scheduler = Scheduler.MAGLEV
    on_failure: OnFailure = OnFailure.DROP
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    limits: SourceLimits = field(default_factory=SourceLimits)


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
    new_flows: int | None = None
    """Flows a second, over all workers, that are remembered from their first packet. Beyond it a flow is
    hashed and remembered when an ACK proves it. None: as many as cannot fill the table, `capacity` / 60."""


@dataclass(frozen=True, slots=True)
class MasqueradeSettings:
    """Where masqueraded flows get their source from."""

    addresses: tuple[Address, ...] = ()
    """Addresses of this host; empty: those that it has towards each backend."""
    first_port: int = 1024
    last_port: int = 32767
    """The last port is below those that Linux gives to programs (ip_local_port_range)."""


@dataclass(frozen=True, slots=True)
class TunnelSettings:
    """How tunnels look from outside."""

    sources: tuple[Network, ...] = ()
    """Networks, at most one a family, that the outer source address is taken from by the flow's hash.
    Empty: for IPIP 198.18.0.0/15 and 100::/64, which nobody uses (RFC 2544, RFC 6666); for GUE, whose
    source port varies, the host's address towards the backend."""
    port: int = 6080
    """UDP port of GUE (IANA)."""


@dataclass(frozen=True, slots=True)
class L4Config:
    """The `l4` section of the configuration file."""

    services: tuple[Service, ...]
    datapath: Datapath = Datapath.AUTO
    workers: int | None = None
    """Number of workers, or None for one a processor."""
    queue: QueueSettings = field(default_factory=QueueSettings)
    flows: FlowSettings = field(default_factory=FlowSettings)
    masquerade: MasqueradeSettings = field(default_factory=MasqueradeSettings)
    tunnel: TunnelSettings = field(default_factory=TunnelSettings)
    hash_key: bytes | None = field(default=None, repr=False)
    """16 bytes shared by gateways that shall choose alike, or None for a key of this machine."""
    vip_interface: str | None = "lo"
    """Where the VIPs are added while the balancer runs, or None to leave addresses alone."""
