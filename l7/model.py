"""What an operator configures in the `l7` section, as frozen values. Plain data: no behaviour, no I/O.

`l7.config` makes these from YAML; `l7.routing`, `l7.balancing` and `l7.tls` are compiled from them at load.
Times are seconds, sizes are bytes. Text that goes onto the wire is `bytes`, checked when it was read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from pathlib import Path

import l4lb.model
from l4lb.model import Address, HealthCheck, Network


class Scheduler(StrEnum):
    """How a backend is chosen for a request."""

    ROUND_ROBIN = "round-robin"
    WEIGHTED_ROUND_ROBIN = "weighted-round-robin"
    LEAST_CONNECTIONS = "least-connections"
    WEIGHTED_LEAST_CONNECTIONS = "weighted-least-connections"
    SOURCE_HASH = "source-hash"
    CONSISTENT_HASH = "consistent-hash"
    POWER_OF_TWO = "power-of-two"
    LEAST_TIME = "least-time"


@dataclass(frozen=True, slots=True)
class HashBy:
    """What `consistent-hash` hashes: the URI, or one header or cookie, by name."""

    kind: str
    """`uri`, `header` or `cookie`."""
    name: bytes = b""


@dataclass(frozen=True, slots=True)
class BackendAddress:
    """Where a backend is: an address, or a name of DNS that is resolved again and again."""

    host: Address | str
    port: int

    @property
    def name(self) -> str:
        """`10.0.0.1:8080`, `[2001:db8::1]:80` or `api.internal:8080`."""
        host = str(self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Backend:
    """A server in a pool."""

    address: BackendAddress
    weight: int = 1
    is_backup: bool = False
    max_connections: int | None = None
    """Requests and upgraded connections at once, of each worker; None is no limit."""

    @property
    def name(self) -> str:
        """Its identity in tables, counters and sticky cookies."""
        return self.address.name


class StickyKind(StrEnum):
    """How a session is known again."""

    INSERT = "insert"
    """By a cookie that the proxy sets."""
    LEARN = "learn"
    """By a cookie that the application sets."""
    SOURCE = "source"
    """By the client's address."""


@dataclass(frozen=True, slots=True)
class Sticky:
    """Requests of one session go to one backend. `max_age_s` None makes a cookie that ends with the browser;
    for `learn` and `source` it is how long a session is remembered after its last request."""

    kind: StickyKind = StickyKind.INSERT
    cookie: bytes = b"SERVERID"
    max_age_s: int | None = None
    path: bytes = b"/"
    domain: bytes | None = None
    secure: bool | None = None
    """None: where the request came over TLS."""
    http_only: bool = True
    same_site: str | None = "Lax"
    capacity: int = 100_000
    """Sessions that `learn` and `source` remember; the one unused for the longest goes first."""


@dataclass(frozen=True, slots=True)
class PassiveCheck(l4lb.model.PassiveCheck):
    """Backends are judged by the requests that they are given, as those of l4lb by their flows.

    Of a pool never more than `max_ejected` (0 to 1) are out, and never the last.
    """

    max_ejected: float = 0.5
    statuses: tuple[tuple[int, int], ...] = ()
    """Ranges of answers that count as failures besides broken and timed-out connections."""


@dataclass(frozen=True, slots=True)
class BackendTls:
    """How backends are spoken to over TLS."""

    verify: bool = True
    ca: Path | None = None
    """None: the authorities of the system."""
    server_name: str | None = None
    """Sent as SNI and looked for in the certificate; None: the backend's host name or address."""
    certificate: Path | None = None
    key: Path | None = None


class ProxyProtocol(IntEnum):
    """Version of the PROXY protocol's header."""

    V1 = 1
    V2 = 2


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long things may take, in seconds, and how slow they may be, in bytes a second (None: as slow as
    they like). What each ends with stands beside it."""

    header_s: float = 15.0
    """From the first byte of a request to the end of its head, and for the TLS handshake: 408."""
    body_s: float = 60.0
    """Between two reads of a request's body: 408."""
    body_rate: int | None = 240
    """Of a request's body, on average over each `body_s` that the client is waited for: 408."""
    write_s: float = 60.0
    """Between two writes that the client takes: closed."""
    write_rate: int | None = 240
    """Of what the client takes of an answer, on average over each `write_s` that it is waited for: closed."""
    idle_s: float = 75.0
    """Of a kept connection between requests: closed."""
    connect_s: float = 5.0
    """To a backend, TLS included: the next backend, then 504."""
    read_s: float = 60.0
    """Between two reads of an answer: 504, or closed where the answer has begun."""
    read_rate: int | None = None
    """Of an answer's body, on average over each `read_s` that the backend is waited for: closed."""
    backend_write_s: float = 60.0
    """Between two writes that the backend takes: 504."""
    total_s: float | None = None
    """Of a request, to the last byte of its answer: 504, or closed."""
    upgraded_s: float = 3600.0
    """Without a byte in either direction of an upgraded connection: closed."""
    queue_s: float = 5.0
    """For a place where all backends are at their `max_connections`: 503."""
    backend_idle_s: float = 30.0
    """That an unused connection to a backend is kept."""


@dataclass(frozen=True, slots=True)
class Retries:
    """When a request is given to another backend.

    Only where no byte of the request was sent, or it is idempotent (RFC 9110, section 9.2.2), its body can
    be sent again and no byte of an answer was passed on. `budget` is the part of the requests of a pool that
    may be retries (0 to 1).
    """

    attempts: int = 2
    """Tries in all, the first included."""
    budget: float = 0.2
    statuses: tuple[tuple[int, int], ...] = ()
    """Answers that are tried elsewhere, too; none unless asked for."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Backends that do the same."""

    name: str
    backends: tuple[Backend, ...]
    scheduler: Scheduler = Scheduler.ROUND_ROBIN
    hash_by: HashBy | None = None
    sticky: Sticky | None = None
    health: HealthCheck | None = None
    passive: PassiveCheck | None = field(default_factory=PassiveCheck)
    slow_start_s: float = 0.0
    max_queue: int = 1024
    """Requests that wait for a place, of each worker; beyond it 503."""
    max_idle: int = 256
    """Unused connections kept, of each worker."""
    tls: BackendTls | None = None
    proxy_protocol: ProxyProtocol | None = None
    """Sent to the backends, one connection for each client's connection."""
    resolve_s: float = 30.0
    """How often names of backends are looked up again."""


class PathKind(IntEnum):
    """How a path is matched."""

    PREFIX = 0
    EXACT = 1
    REGEX = 2


@dataclass(frozen=True, slots=True)
class PathMatch:
    """A path, as nginx matches it.

    `text` is a prefix or a path after percent-decoding and removal of dot segments, or a regular expression
    that is searched in such a path.
    """

    kind: PathKind
    text: str
    before_regex: bool = False
    """Of a prefix: where it is the longest, regular expressions are not asked (nginx `^~`)."""
    ignore_case: bool = False
    """Of a regular expression (nginx `~*`)."""


@dataclass(frozen=True, slots=True)
class ValueMatch:
    """A header, query parameter or cookie: it is there (`value` and `pattern` None), is `value`, or `pattern`
    is found in it; `negate` asks for the opposite."""

    name: str
    value: str | None = None
    pattern: str | None = None
    negate: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a route is for. Empty fields ask nothing; all others must hold."""

    hosts: tuple[str, ...] = ()
    """Lower case: `example.com`, `*.example.com` (any number of labels before it)."""
    paths: tuple[PathMatch, ...] = ()
    methods: tuple[bytes, ...] = ()
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()
    cookies: tuple[ValueMatch, ...] = ()
    clients: tuple[Network, ...] = ()
    listeners: tuple[str, ...] = ()
    """Names of listeners that it is for."""


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    """What is done to the headers of a message: removed, then set, then added.

    Values are templates: `$host`, `$scheme`, `$remote_addr`, `$remote_port`, `$request_uri`, `$uri`,
    `$args`, `$proxy_add_x_forwarded_for`, `$http_NAME`, `$cookie_NAME`, `$request_id`, `$ssl_client_s_dn`
    and the like, as in nginx; `$$` is one dollar.
    """

    set: tuple[tuple[bytes, str], ...] = ()
    add: tuple[tuple[bytes, str], ...] = ()
    remove: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What becomes of the path before it is sent: `prefix` replaces the route's prefix, or `pattern` is
    replaced once by `replacement` (with \\1 to \\9)."""

    prefix: str | None = None
    pattern: str | None = None
    replacement: str = ""


@dataclass(frozen=True, slots=True)
class Redirect:
    """An answer that sends the client elsewhere; `to` is a template, as the values of headers."""

    to: str
    status: int = 302


@dataclass(frozen=True, slots=True)
class Respond:
    """A fixed answer."""

    status: int = 200
    body: bytes = b""
    content_type: bytes = b"text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Share:
    """A pool and its weight in a split."""

    pool: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Route:
    """Requests that `match`, and what becomes of them: exactly one of `shares`, `redirect` and `respond`."""

    name: str
    match: Match
    shares: tuple[Share, ...] = ()
    redirect: Redirect | None = None
    respond: Respond | None = None
    rewrite: Rewrite | None = None
    request_headers: HeaderEdits = field(default_factory=HeaderEdits)
    response_headers: HeaderEdits = field(default_factory=HeaderEdits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    retries: Retries = field(default_factory=Retries)
    max_body: int | None = 1 << 20
    """Bytes of a request's body (nginx client_max_body_size); None is no limit. Beyond it: 413."""
    upgrades: tuple[bytes, ...] = (b"websocket",)
    """Protocols that may be upgraded to, in lower case; others are served as ordinary requests."""
    priority: int = 0
    """Routes of a higher one are asked first, whatever their match."""


class ClientCertificates(StrEnum):
    """Whether clients must show a certificate."""

    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its chain, and its key; both PEM. `key` None: in the same file."""

    cert: Path
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class ListenerTls:
    """How a listener ends TLS. The first certificate is the default one."""

    certificates: tuple[Certificate, ...]
    refuse_unknown: bool = False
    """A name that no certificate is for: refused, else given the default certificate."""
    min_version: str = "1.2"
    ciphers: str | None = None
    """Of TLS 1.2, in OpenSSL's words; None: those with forward secrecy and AEAD."""
    client_ca: Path | None = None
    client_certificates: ClientCertificates | None = None


@dataclass(frozen=True, slots=True)
class PassThrough:
    """Connections whose SNI is one of `names` (`*.example.com` too; empty: all others, and those without SNI)
    go to `pool` undecrypted."""

    names: tuple[str, ...]
    pool: str


@dataclass(frozen=True, slots=True)
class Listener:
    """Where clients connect to."""

    name: str
    endpoints: tuple[tuple[Address, int], ...]
    tls: ListenerTls | None = None
    pass_through: tuple[PassThrough, ...] = ()
    accept_proxy: tuple[Network, ...] = ()
    """Peers that begin with a PROXY header, version 1 or 2; others are refused where this is not empty."""
    max_connections: int | None = None
    """Of each worker; beyond it connections wait in the kernel."""


class LogFormat(StrEnum):
    """How a line of the access log looks."""

    COMBINED = "combined"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class AccessLog:
    """Where requests are logged; `path` None is standard output."""

    path: Path | None = None
    format: LogFormat = LogFormat.COMBINED


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what a client may send; the answer stands beside each."""

    request_line: int = 8 << 10
    """414"""
    header_bytes: int = 32 << 10
    """Of a head, request or answer: 431 or 502."""
    header_count: int = 100
    """431 or 502"""
    requests_per_connection: int = 1_000_000
    """Then the connection is closed behind the answer."""
    connections: int = 16_384
    """Of each worker; beyond it they wait in the kernel."""


@dataclass(frozen=True, slots=True)
class L7Config:
    """The `l7` section of the configuration file."""

    listeners: tuple[Listener, ...]
    routes: tuple[Route, ...]
    pools: tuple[Pool, ...]
    workers: int | None = None
    """Number of worker processes, or None for one a processor."""
    user: str | None = None
    group: str | None = None
    trusted_proxies: tuple[Network, ...] = ()
    """Peers whose X-Forwarded-For, -Proto, -Host, -Port and Forwarded are believed."""
    access_log: AccessLog | None = field(default_factory=AccessLog)
    error_pages: tuple[tuple[int, Path], ...] = ()
    """Status and the file that is sent as the body of answers that are the proxy's own."""
    limits: Limits = field(default_factory=Limits)
    secret: bytes | None = field(default=None, repr=False)
    """Signs sticky cookies; shared by gateways that shall know each other's. None: from the machine's id."""
    metrics: tuple[Address, int] | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    """Before a request has a route, and of connections that pass through."""
    shutdown_s: float = 30.0
    """How long old workers may go on with what they have at a stop; at a reload they go on until it ends."""
