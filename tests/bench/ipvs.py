"""IPVS as peer, in the lab of virtual machines (./scripts/vm-lab bench): NAT and direct return, on the same
machines in one run.

Emulated machines are slow, all alike: only ratios mean anything.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

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
IPVS_NAT, IPVS_DR = "ipvs-nat", "ipvs-dr"
CONNECTIONS = 16

Side = Callable[[], AbstractContextManager[None]]


def run(settings: Settings) -> list[Measure]:
    """NAT first, then direct return, for which the backends are set up anew."""
    if not machines.is_up():
        raise BenchError("the virtual machines are not up; ./scripts/vm-lab bench brings them up")
    machines.write_ssh_config()
    lab = VmLab()
    lab.through_gateway()
    nat = _measure(
        lab,
        {
            IPVS_NAT: lambda: ipvs(lab, "rr", WEIGHTS),
            "mark": lambda: _ours(lab, "nat", "mark"),
            "offload": lambda: _ours(lab, "nat", "offload"),
        },
        settings,
    )
    lab.past_gateway("dsr")
    direct = _measure(
        lab,
        {
            IPVS_DR: lambda: ipvs(lab, "rr", WEIGHTS, forward="dr", port=80),
            "dsr-mark": lambda: _ours(lab, "dsr", "mark"),
            "dsr-offload": lambda: _ours(lab, "dsr", "offload"),
        },
        settings,
    )
    lab.through_gateway()
    return [
        *_beside(nat, IPVS_NAT, {"mark": (0.8, None), "offload": (0.8, 0.9)}),
        *_beside(direct, IPVS_DR, {"dsr-mark": (None, None), "dsr-offload": (None, 0.9)}),
    ]


@contextlib.contextmanager
def _ours(lab: VmLab, forward: str, datapath: str) -> Iterator[None]:
    port = ":8080" if forward == "nat" else ""
    lab.balance(balanced("round-robin", WEIGHTS, forward=forward, port=port), datapath=datapath)
    yield
    lab.gateway.run("systemctl stop l4lb")


def _measure(lab: VmLab, sides: Mapping[str, Side], settings: Settings) -> dict[str, dict[str, Series]]:
    """Quantity → side → results: the sides change places every round, for only one can have the address."""
    seconds = max(1, round(settings.seconds))

    def way(side: Side) -> Callable[[], Sample]:
        def measure() -> Sample:
            with side():
                wait_until("an answer", lambda: lab.ask(2)["failed"] == 0)
                return {"closed": _wrk(lab, seconds, close=True), "kept": _wrk(lab, seconds, close=False)}

        return measure

    progress("bench: in virtual machines\n")
    return alternate({name: way(side) for name, side in sides.items()}, settings.runs)


def _wrk(lab: VmLab, seconds: int, *, close: bool) -> float:
    header = "-H 'Connection: close'" if close else ""
    said = lab.client.run(
        f"sysctl -qw net.ipv4.tcp_tw_reuse=1; wrk -t1 -c{CONNECTIONS} -d{seconds}s --timeout 10s {header} http://{VIP}/",
        timeout_s=seconds + 120,
    )
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if rate is None or "Non-2xx" in said:
        raise BenchError(f"wrk gave no rate: {' '.join(said.split())}")
    return float(rate[1])


def _beside(
    found: Mapping[str, Mapping[str, Series]],
    peer: str,
    targets: Mapping[str, tuple[float | None, float | None]],
) -> list[Measure]:
    kinds = (("closed", "new_connections_per_s", "connections/s"), ("kept", "requests_per_s", "requests/s"))
    measures = []
    for name, limits in targets.items():
        for (key, kind, unit), limit in zip(kinds, limits, strict=True):
            ours, peers = found[key][name], {peer: found[key][peer]}
            wanted = (Target(limit, of=peer),) if limit else ()
            measures.append(Measure(f"{kind}/{name}", unit, "more", ours, peers, wanted))
    return measures
