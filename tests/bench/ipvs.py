"""IPVS as peer, in the lab of virtual machines (./scripts/vm-lab bench): NAT and direct return, on the same
machines in one run.

Emulated machines are slow, all alike: only ratios mean anything.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from tests.bench import senders
from tests.bench.errors import BenchError
from tests.bench.report import Measure, Target
from tests.bench.runner import Sample, Series, Settings, alternate, progress
from tests.support.vm import machines
from tests.support.vm.lab import VIP, VmLab, wait_until
from tests.support.vm.traffic import balanced, ipvs

ABOUT = "new connections, kept requests and datagram packets beside IPVS NAT and DR, in virtual machines"
PROGRAMS: tuple[str, ...] = ()
DEFAULTS = Settings(runs=5, seconds=5.0)
QUICK = Settings(runs=1, seconds=2.0, quick=True)
NEEDS_LAB = False

WEIGHTS = {"10.2.0.11": 1, "10.2.0.12": 1}
PROTOCOLS = ("tcp", "udp")
IPVS_NAT, IPVS_DR, FLOWTABLE = "ipvs-nat", "ipvs-dr", "flowtable"
CONNECTIONS = 16
_QUANTITIES = {
    "closed": ("new_connections_per_s", "connections/s"),
    "kept": ("requests_per_s", "requests/s"),
    "packets": ("packets_per_s", "packets/s"),
}
_TARGETS = {
    ("closed", "mark"): Target(0.8, of=IPVS_NAT),
    ("closed", "offload"): Target(0.8, of=IPVS_NAT),
    ("kept", "offload"): Target(0.9, of=IPVS_NAT),
    ("closed", "dsr-offload"): Target(0.9, of=IPVS_DR),
    ("kept", "dsr-offload"): Target(0.9, of=IPVS_DR),
    ("packets", "dsr-offload"): Target(0.9, of=IPVS_DR),
}
# What the kernel has for established flows: connection tracking, and its flowtable past the IP stack.
_FLOWTABLE = f"""
table ip vmflow {{
    flowtable established {{
        hook ingress priority 0
        devices = {{ eth1, eth2 }}
    }}
    chain chosen {{
        type nat hook prerouting priority dstnat
        meta l4proto {{ tcp, udp }} ip daddr {VIP} th dport 80 dnat to numgen inc mod 2 map {{
            {", ".join(f"{n} : {address} . 8080" for n, address in enumerate(WEIGHTS))}
        }}
    }}
    chain learned {{
        type filter hook forward priority 0
        meta l4proto {{ tcp, udp }} flow add @established
    }}
}}
"""
# Datagrams end where they arrive: nobody answers them, and they are counted there.
_SINK = """
table inet vmbench {
    counter datagrams { }
    chain arrived {
        type filter hook prerouting priority -500
        udp dport { 80, 8080 } counter name datagrams drop
    }
}
"""

Side = Callable[[], AbstractContextManager[None]]


def run(settings: Settings) -> list[Measure]:
    """NAT first, then direct return, for which the backends are set up anew."""
    if not machines.came_up():
        raise BenchError("the virtual machines are not up; ./scripts/vm-lab bench brings them up")
    lab = VmLab()
    with _sinks(lab):
        lab.through_gateway()
        nat = _measure(
            lab,
            {
                IPVS_NAT: lambda: _theirs(lab, "nat", 8080),
                FLOWTABLE: lambda: _flowtable(lab),
                "mark": lambda: _ours(lab, "nat", "mark"),
                "offload": lambda: _ours(lab, "nat", "offload"),
            },
            settings,
        )
        lab.past_gateway("dsr")
        direct = _measure(
            lab,
            {
                IPVS_DR: lambda: _theirs(lab, "dr", 80),
                "dsr-mark": lambda: _ours(lab, "dsr", "mark"),
                "dsr-offload": lambda: _ours(lab, "dsr", "offload"),
            },
            settings,
        )
        lab.through_gateway()
    return [
        *_beside(nat, (IPVS_NAT, FLOWTABLE), ("mark", "offload")),
        *_beside(direct, (IPVS_DR,), ("dsr-mark", "dsr-offload")),
    ]


@contextlib.contextmanager
def _sinks(lab: VmLab) -> Iterator[None]:
    """The sender in the client, and where its datagrams end."""
    lab.client.write("/tmp/blast", senders.build("blast", static=True).read_bytes())
    lab.client.run("chmod +x /tmp/blast; sysctl -qw net.ipv4.tcp_tw_reuse=1")
    with lab.rules(lab.backends, "inet vmbench", _SINK):
        yield


@contextlib.contextmanager
def _theirs(lab: VmLab, forward: str, port: int) -> Iterator[None]:
    with ipvs(lab) as peer:
        peer.serve("rr", WEIGHTS, forward=forward, port=port, protocols=PROTOCOLS)
        yield


@contextlib.contextmanager
def _flowtable(lab: VmLab) -> Iterator[None]:
    lab.gateway.run("systemctl stop l4lb; sysctl -qw net.ipv4.ip_forward=1")
    with lab.rules([lab.gateway], "ip vmflow", _FLOWTABLE):
        yield


@contextlib.contextmanager
def _ours(lab: VmLab, forward: str, datapath: str) -> Iterator[None]:
    port = ":8080" if forward == "nat" else ""
    config = balanced("round-robin", WEIGHTS, forward=forward, port=port, protocols=PROTOCOLS)
    lab.balance(config, datapath=datapath)
    try:
        yield
    finally:
        lab.gateway.run("systemctl stop l4lb")


def _measure(lab: VmLab, sides: Mapping[str, Side], settings: Settings) -> dict[str, dict[str, Series]]:
    """Quantity → side → results: the sides change places every round, for only one can have the address."""
    seconds = max(1, round(settings.seconds))

    def way(side: Side) -> Callable[[], Sample]:
        def measure() -> Sample:
            with side():
                wait_until("an answer", lambda: lab.ask(2)["failed"] == 0)
                return {
                    "closed": _wrk(lab, seconds, close=True),
                    "kept": _wrk(lab, seconds, close=False),
                    "packets": _blast(lab, seconds),
                }

        return measure

    progress("bench: in virtual machines\n")
    return alternate({name: way(side) for name, side in sides.items()}, settings.runs)


def _wrk(lab: VmLab, seconds: int, *, close: bool) -> float:
    header = "-H 'Connection: close'" if close else ""
    said = lab.client.run(
        f"wrk -t1 -c{CONNECTIONS} -d{seconds}s --timeout 10s {header} http://{VIP}/", timeout_s=seconds + 120
    )
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if rate is None or "Non-2xx" in said:
        raise BenchError(f"wrk gave no rate: {' '.join(said.split())}")
    return float(rate[1])


def _blast(lab: VmLab, seconds: int) -> float:
    """Datagrams of the smallest frame that the backends get, of what a sender sends flat out."""
    lab.in_all(lab.backends, "nft reset counters table inet vmbench")
    sent = lab.client.run(f"/tmp/blast -p 80 -l 18 -d {seconds} {VIP}", timeout_s=seconds + 120)
    shown = lab.in_all(lab.backends, "nft -j list counter inet vmbench datagrams")
    arrived = sum(json.loads(one)["nftables"][1]["counter"]["packets"] for one in shown)
    if not arrived:
        raise BenchError(f"no datagram arrived at a backend; the sender said: {' '.join(sent.split())}")
    return float(arrived / float(sent.split()[-1]))


def _beside(
    found: Mapping[str, Mapping[str, Series]], peers: Sequence[str], names: Sequence[str]
) -> list[Measure]:
    measures = []
    for name in names:
        for key, (kind, unit) in _QUANTITIES.items():
            target = _TARGETS.get((key, name))
            beside = {peer: found[key][peer] for peer in peers}
            wanted = (target,) if target else ()
            measures.append(Measure(f"{kind}/{name}", unit, "more", found[key][name], beside, wanted))
    return measures
