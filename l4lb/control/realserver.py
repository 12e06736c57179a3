"""What a backend host needs to answer for a VIP itself, with direct return or behind a tunnel. Pure.

    step       why
    Tunnel     takes the inner packet out of its outer one (ipip, sit, ip6tnl: by the two families)
    GuePort    takes off UDP and GUE first; the kernel then goes on with what is inside
    Setting    IPv4: the host answers ARP for the VIP on no interface, and asks for nobody in the VIP's name.
               Behind a tunnel: packets arrive on a device that no route to their client leads to, which a
               strict reverse path filter takes for forged
    Clamp      the MSS in the host's SYN-ACKs leaves room for what the tunnel adds
    HostVip    the VIP on `lo`, so that the host takes the packet for its own. An IPv4 VIP that comes through
               a tunnel stands on its device: from one without an address even the loose filter takes nothing
               (__fib_validate_source in net/ipv4/fib_frontend.c)

IPv6 needs no setting: Linux answers a neighbour solicitation only on the interface that has the address
(ndisc_recv_ns in net/ipv6/ndisc.c), and nothing solicits on `lo`. There the VIP is added as deprecated, so
that the host never chooses it as the source of its own connections (RFC 6724, rule 3).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from l4lb.errors import ConfigError
from l4lb.model import Address, Forward

TABLE = "l4lb_real_server"
"""The nftables table (inet) with the clamps."""

_GUE_HEADERS = 12
_IP_HEADER = {4: 20, 6: 40}
_TCP_HEADER = 20
_LEAST_IPV6_MTU = 1280
"""A device with less has no IPv6 (RFC 8200, section 5)."""
_LEAST_MSS = 536
_KINDS = {(4, 4): "ipip", (6, 4): "sit", (4, 6): "ip6tnl", (6, 6): "ip6tnl"}
"""(family inside, family outside) → the kernel's kind of tunnel."""


@dataclass(frozen=True, slots=True)
class Nic:
    """The interface that packets come in by. `addresses` are its global ones, the first first."""

    name: str
    mtu: int
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for.

    `vips` is not empty. `forward` is DSR, IPIP or GUE. `backends` are the host's addresses as the balancer's
    configuration names them, at most one a family; none: the interface's. `mtu` is that of the path from the
    gateway; None: the interface's. `device` stands already and decapsulates in place of the kernel's tunnels.
    """

    vips: tuple[Address, ...]
    forward: Forward
    gue_port: int = 6080
    backends: tuple[Address, ...] = ()
    mtu: int | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A device that decapsulates what is sent to `local`, from whomever."""

    kind: str
    local: Address
    mtu: int

    @property
    def name(self) -> str:
        """One device of a kind is enough."""
        return f"l4lb-{self.kind}"


@dataclass(frozen=True, slots=True)
class GuePort:
    """A UDP port of one family that the kernel takes GUE from."""

    version: int
    port: int


@dataclass(frozen=True, slots=True)
class Setting:
    """A file below /proc/sys/net. Values in `enough` are left as they are."""

    path: str
    value: str
    enough: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Clamp:
    """SYN-ACKs from these VIPs, all of one family, announce at most `mss` bytes."""

    vips: tuple[Address, ...]
    mss: int

    @property
    def version(self) -> int:
        """The family of the VIPs."""
        return self.vips[0].version


@dataclass(frozen=True, slots=True)
class HostVip:
    """A VIP on a device."""

    address: Address
    device: str = "lo"


Step = Tunnel | GuePort | Setting | Clamp | HostVip


def plan(wish: Wish, nic: Nic) -> tuple[Step, ...]:
    """The steps, in the order in which they are safe: the VIP itself comes last.

    ConfigError where the wish makes no sense on this interface.
    """
    _check(wish, nic)
    vips = tuple(sorted(set(wish.vips), key=lambda vip: (vip.version, vip)))
    steps: list[Step] = []
    if wish.forward.is_tunnel and wish.device is None:
        steps += _decapsulation(wish, nic, vips)
    if any(vip.version == 4 for vip in vips):
        steps += [Setting(f"ipv4/conf/{name}/arp_ignore", "1", ("1", "2", "8")) for name in ("all", nic.name)]
        steps += [Setting(f"ipv4/conf/{name}/arp_announce", "2", ("2",)) for name in ("all", nic.name)]
    device = _device(wish, nic, vips)
    if device is not None:
        # The kernel takes the larger of this and `all`: 0 would not loosen a strict `all`.
        steps.append(Setting(f"ipv4/conf/{device}/rp_filter", "2", ("2",)))
    if wish.forward.is_tunnel:
        for version in (4, 6):
            mine = tuple(vip for vip in vips if vip.version == version)
            if mine:
                steps.append(Clamp(mine, _mss(wish, nic, version)))
    return (*steps, *(HostVip(vip, device or "lo") if vip.version == 4 else HostVip(vip) for vip in vips))


def overhead(forward: Forward, outer_version: int) -> int:
    """Bytes that a tunnel adds to a packet (docs/design/decision.md, section 9)."""
    return _IP_HEADER[outer_version] + (_GUE_HEADERS if forward is Forward.GUE else 0)


def commands(step: Step) -> list[str]:
    """The lines of a shell that do the step; they may be run again, but for a tunnel and a GUE port."""
    match step:
        case Tunnel():
            module, mode = _MODULES[step.kind]
            return [
                f"# modprobe {module}",
                f"ip link add {step.name} mtu {step.mtu} type {step.kind} mode {mode} local {step.local}",
                f"ip link set {step.name} up",
            ]
        case GuePort():
            module, option = ("fou6", "-6 ") if step.version == 6 else ("fou", "")
            return [f"# modprobe {module}", f"ip {option}fou add port {step.port} gue"]
        case Setting():
            # With a slash first, a dot is part of an interface's name.
            name = f"net/{step.path}" if "." in step.path else f"net/{step.path}".replace("/", ".")
            return [f"sysctl -qw {shlex.quote(f'{name}={step.value}')}"]
        case Clamp():
            return [f"nft {shlex.quote('; '.join(clamp_script(step)))}"]
        case HostVip():
            address = step.address
            if address.version == 4:
                return [f"ip addr replace {address}/32 dev {shlex.quote(step.device)}"]
            return [f"ip addr replace {address}/128 dev lo nodad preferred_lft 0"]


_MODULES = {"ipip": ("ipip", "ipip"), "sit": ("sit", "ip6ip"), "ip6tnl": ("ip6_tunnel", "any")}
"""Kind of tunnel → kernel module, and `ip`'s word for what it carries."""


def clamp_script(clamp: Clamp) -> list[str]:
    """The nftables statements of a clamp. They may be run again, and beside those of others.

    nftables only ever lowers the MSS (nft_exthdr_tcp_set_eval in net/netfilter/nft_exthdr.c).
    """
    chain, vips = clamp_names(clamp)
    family = "ip" if clamp.version == 4 else "ip6"
    return [
        f"add table inet {TABLE}",
        f"add chain inet {TABLE} {chain} {{ type filter hook output priority mangle; policy accept; }}",
        f"add set inet {TABLE} {vips} {{ type ipv{clamp.version}_addr; }}",
        f"add element inet {TABLE} {vips} {{ {', '.join(map(str, clamp.vips))} }}",
        f"flush chain inet {TABLE} {chain}",
        f"add rule inet {TABLE} {chain} {family} saddr @{vips} tcp flags & (syn | ack) == (syn | ack) "
        f"tcp option maxseg size set {clamp.mss}",
    ]


def clamp_names(clamp: Clamp) -> tuple[str, str]:
    """The chain and the set of a clamp: one of each for a family and an MSS."""
    return f"ipv{clamp.version}_mss_{clamp.mss}", f"ipv{clamp.version}_vips_{clamp.mss}"


def explain(step: Step) -> str:
    """What a step is for, as the comment above its commands."""
    match step:
        case Tunnel():
            return "Takes packets to the VIP out of the tunnel."
        case GuePort():
            return "Takes off UDP and GUE; the tunnel's device gets the rest."
        case Setting(path=path) if path.endswith("rp_filter"):
            return "No route to a client leads back into the tunnel; a strict filter would drop every packet."
        case Setting():
            return "On the segment, the gateway alone answers for the VIP."
        case Clamp():
            return "Clients send segments that fit through the tunnel."
        case HostVip():
            return "The host takes packets to the VIP for its own."


def _check(wish: Wish, nic: Nic) -> None:
    if not wish.forward.is_tunnel and (wish.device or wish.backends or wish.mtu):
        raise ConfigError("--tunnel-device, --backend and --mtu are for tunnels; add --forward ipip or gue")
    versions = [address.version for address in wish.backends]
    if len(versions) != len(set(versions)):
        raise ConfigError("--backend: at most one address of a family")
    for vip in wish.vips:
        if vip in nic.addresses:
            raise ConfigError(
                f"--vip {vip}: is an address of {nic.name}, where this host answers for it; remove it there"
            )


def _outer(wish: Wish, nic: Nic, version: int) -> Address:
    """Where packets to VIPs of a family are tunnelled to: an address of that family, else of the other."""
    own: Sequence[Address] = wish.backends or [a for a in nic.addresses if a not in wish.vips]
    found = sorted(own, key=lambda address: address.version != version)
    if not found:
        raise ConfigError(f"{nic.name} has no address that a tunnel could end at; name one with --backend")
    return found[0]


def _decapsulation(wish: Wish, nic: Nic, vips: Sequence[Address]) -> list[Step]:
    tunnels: dict[str, Tunnel] = {}
    ports: list[Step] = []
    for version in sorted({vip.version for vip in vips}):
        tunnel = _tunnel(wish, nic, version)
        before = tunnels.get(tunnel.kind)
        # The one that carries both families has the larger minimum.
        if before is None or before.mtu < tunnel.mtu:
            tunnels[tunnel.kind] = tunnel
        port = GuePort(tunnel.local.version, wish.gue_port)
        if wish.forward is Forward.GUE and port not in ports:
            ports.append(port)
    return [*tunnels.values(), *ports]


def _tunnel(wish: Wish, nic: Nic, version: int) -> Tunnel:
    local = _outer(wish, nic, version)
    room = (wish.mtu or nic.mtu) - overhead(wish.forward, local.version)
    mtu = max(room, _LEAST_IPV6_MTU) if version == 6 else room
    return Tunnel(_KINDS[version, local.version], local, mtu)


def _device(wish: Wish, nic: Nic, vips: Sequence[Address]) -> str | None:
    """The device that packets to IPv4 VIPs come out of a tunnel by."""
    if not wish.forward.is_tunnel or all(vip.version == 6 for vip in vips):
        return None
    return wish.device or _tunnel(wish, nic, 4).name


def _mss(wish: Wish, nic: Nic, version: int) -> int:
    mtu = wish.mtu or nic.mtu
    outer = _outer(wish, nic, version)
    mss = mtu - overhead(wish.forward, outer.version) - _IP_HEADER[version] - _TCP_HEADER
    if mss < _LEAST_MSS:
        raise ConfigError(f"{nic.name}: an MTU of {mtu} leaves too little room in a tunnel")
    return min(mss, 65535)
