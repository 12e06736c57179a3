"""What an operator configures, as frozen values. Plain data: no behaviour, no I/O.

`l4lb.control.config` makes these from YAML; `l4lb.control.expand` turns them into what the packet
path reads. Times are seconds, sizes are bytes, addresses are `ipaddress` objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from functools import lru_cache
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
    FAILOVER = "failover"
    OVERFLOW = "overflow"


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
    backup: int = 0
    """0: always used. Else its priority as a backup: those of the lowest number that work are used when too
    few ordinary backends do."""
    sorry: bool = False
    """The sorry server of its service: used only while no other backend takes new flows, and not checked."""
    max_connections: int | None = None
    """With so many open connections it takes no new ones; None: no limit."""
    maintenance: bool = False
    """Somebody works at it: it takes no new flows and is not checked."""

    @property
    def name(self) -> str:
        """`10.2.0.11:8080`, `[2001:db8::1]:80`, or the bare address where the port is kept.

        The name is the backend's identity: consistent hashing and counters are keyed by it.
        """
        return _endpoint_name(self.address.version, int(self.address), self.port)


@lru_cache(maxsize=1 << 17)
def _endpoint_name(version: int, address: int, port: int | None) -> str:
    """Kept by numbers, which are found quickest: names are asked for at every change, of every backend."""
    host = str(IPv4Address(address) if version == 4 else IPv6Address(address))
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class OnDown(StrEnum):
    """What becomes of the flows of a backend that goes down."""

    KEEP = "keep"
    """They stay, for it may come back."""
    RESET = "reset"
    """They are forgotten; TCP clients get a reset with their next packet."""
    MOVE = "move"
    """They are forgotten; the next packet goes to another backend."""


class BelowQuorum(StrEnum):
    """What becomes of new flows of a service that has lost its quorum."""

    SERVE = "serve"
    """Backends that are up go on taking them."""
    REFUSE = "refuse"
    """No backend takes them: they go to the sorry server, or are refused as `on_no_backend` says."""


class OnNoBackend(StrEnum):
    """What becomes of new flows that no backend takes."""

    DROP = "drop"
    REJECT = "reject"
    """The client is told: TCP by a reset, UDP by an ICMP error."""


class CheckType(StrEnum):
    """How a backend is asked whether it works."""

    TCP = "tcp"
    HTTP = "http"
    HTTPS = "https"
    UDP = "udp"
    DNS = "dns"
    PING = "ping"
    TLS = "tls"
    SYN = "syn"
    EXEC = "exec"


class Via(StrEnum):
    """Whom a check's packets are addressed to."""

    VIP = "vip"
    BACKEND = "backend"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What an answer must be. Empty fields ask nothing.

    `status` has inclusive ranges of HTTP status codes; `body` is text that must be in the body, `pattern` a
    regular expression that must match somewhere in it. For UDP both are about the datagram.
    """

    status: tuple[tuple[int, int], ...] = ((200, 399),)
    body: str | None = None
    pattern: str | None = None

    @property
    def asks_for_text(self) -> bool:
        """Whether anything is expected of a body."""
        return self.body is not None or self.pattern is not None


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How the backends of a service are checked.

    `port` None is the backend's port, or the first of the listen where it keeps ports. `host` is the HTTP
    Host or the TLS server name; `verify` whether the certificate must be valid for it. `payload` is sent by
    `udp`; `query` is the name that `dns` asks for; `command` are the words of `exec`, to which address and
    port are appended. `via` None is what `l4lb.control.check_way` makes of the mode.
    """

    type: CheckType
    interval_s: float = 5.0
    timeout_s: float = 3.0
    rise: int = 2
    fall: int = 3
    port: int | None = None
    path: str = "/"
    method: str = "GET"
    host: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    verify: bool = True
    payload: bytes = b""
    query: str = "."
    command: tuple[str, ...] = ()
    expect: Expectation = field(default_factory=Expectation)
    via: Via | None = None


@dataclass(frozen=True, slots=True)
class PassiveCheck:
    """Backends are judged by how flows to them begin.

    `failures` in a row take one out for `inhibit_s`, twice as long each time, up to `longest_s`. A failure
    is a flow whose client never got beyond its SYN.
    """

    failures: int = 5
    inhibit_s: float = 10.0
    longest_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Affinity:
    """Flows of one client, or of one client network, go to one backend.

    `prefix` is the length of the client network, of IPv4 and of IPv6; it lasts `timeout_s` from its last
    new flow. Services of one `group` share it: their clients meet the same host.
    """

    prefix4: int = 32
    prefix6: int = 128
    timeout_s: float = 300.0
    group: str | None = None


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """What one client address may have of a service; None is no limit."""

    new_flows: int | None = None
    """Flows that it may begin in a second."""
    flows: int | None = None
    """Flows that it may have at once."""


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many backends must be up for a service to be whole.

    Where `part` (0 to 1) is given, so much of the ordinary backends stands in place of the number `backends`.
    Quorum is lost `hysteresis` backends below, and regained as many above.
    """

    backends: int = 1
    part: float | None = None
    hysteresis: int = 0


@dataclass(frozen=True, slots=True)
class Service:
    """A virtual service: where clients connect to, and who answers them.

    Where `allow` has networks, only their clients are served; those of `deny` never are. One of `backends`
    may be the sorry server.
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
    affinity: Affinity | None = None
    max_connections: int | None = None
    """That of backends which have none of their own."""
    one_packet: bool = False
    """No datagram is remembered: each is scheduled."""
    python: str | None = None
    """A scheduler of the user's, `package.module:Class`; `scheduler` stands in where it has no answer."""
    health: HealthCheck | None = None
    passive: PassiveCheck | None = None
    on_down: OnDown = OnDown.KEEP
    slow_start_s: float = 0.0
    """Seconds in which the weight of a backend that comes up grows from a tenth to all of it."""
    panic_threshold: float = 0.0
    """With a smaller part of the backends up than this (0 to 1), all are used: most of them cannot be
    down."""
    quorum: Quorum = field(default_factory=Quorum)
    below_quorum: BelowQuorum = BelowQuorum.SERVE
    on_no_backend: OnNoBackend = OnNoBackend.DROP
    withdraw_vip: bool = False
    """Without its quorum the service gives its VIPs up, where no other service that would is whole."""
    drain_timeout_s: float = 300.0
    """After this a draining backend's flows are no longer waited for."""


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
    metrics: tuple[Address, int] | None = None
    """Where metrics are served on TCP besides the admin socket."""
    hash_key: bytes | None = field(default=None, repr=False)
    """16 bytes shared by gateways that shall choose alike, or None for a key of this machine."""
    vip_interface: str | None = "lo"
    """Where the VIPs are added while the balancer runs, or None to leave addresses alone."""
