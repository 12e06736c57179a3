"""Bad links, and machines that go away: nothing is broken that plain routing would not break."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.support.vm.lab import VmLab, wait_until
from tests.support.vm.machines import Machine

NETEM = {
    "loss": "loss 1%",
    "delay": "delay 20ms 5ms",
    "reordering": "delay 5ms reorder 25% 50%",
}


@pytest.fixture(params=["nat", "dsr"], scope="module")
def forward(request: pytest.FixtureRequest, lab: VmLab) -> str:
    """How the gateway forwards, with the backends set up for it."""
    if request.param == "nat":
        lab.through_gateway()
    else:
        lab.past_gateway("dsr")
    lab.balance(request.param)
    return request.param


@pytest.fixture(params=list(NETEM))
def bad_links(forward: str, request: pytest.FixtureRequest, lab: VmLab) -> Iterator[None]:
    """What the gateway sends to the backends and what they send is lost, delayed or reordered."""
    lab.in_all(lab.backends, f"tc qdisc replace dev $(lab-leg) root netem {NETEM[request.param]}")
    lab.gateway.run(f"tc qdisc replace dev eth2 root netem {NETEM[request.param]}")
    yield
    lab.in_all([lab.gateway, *lab.backends], "for d in eth1 eth2; do tc qdisc del dev $d root; done || true")


@pytest.mark.usefixtures("bad_links")
def test_bad_links_break_no_transfer_and_no_short_connection(lab: VmLab) -> None:
    assert lab.same_file()
    answers = lab.ask(1000, at_once=16)
    assert set(answers) == {"web1", "web2"}
    assert answers.total() == 1000


def boot_of(machine: Machine) -> str:
    """Which start of its this is; empty where the machine does not answer."""
    try:
        return machine.ask("cat /proc/sys/kernel/random/boot_id", timeout_s=20).out.strip()
    except subprocess.TimeoutExpired:
        return ""


def reboot(machine: Machine) -> str:
    """Has a machine start anew; which start it was until now."""
    before = boot_of(machine)
    machine.ask("systemctl reboot")
    machine.forget_connection()
    return before


def test_a_backend_that_reboots_is_left_out_and_comes_back(lab: VmLab) -> None:
    lab.through_gateway()
    lab.balance("nat")
    web2 = lab.backends[1]
    before = reboot(web2)
    wait_until("web2 to be down", lambda: states(lab).get("10.2.0.12:8080") == "down", within_s=120)
    assert lab.ask(6) == {"web1": 6}
    wait_until("web2 to be up", lambda: states(lab).get("10.2.0.12:8080") == "up", within_s=400)
    assert lab.ask(4) == {"web1": 2, "web2": 2}
    assert boot_of(web2) not in ("", before)


def states(lab: VmLab) -> dict[str, str]:
    """State of every backend of the service `web`."""
    return {row["backend"]: row["state"] for row in lab.backend_rows() if row["service"] == "web"}


def test_a_gateway_that_reboots_serves_again_by_itself(lab: VmLab) -> None:
    lab.through_gateway()
    lab.balance("nat")
    before = reboot(lab.gateway)
    wait_until("the gateway to start", lambda: boot_of(lab.gateway) not in ("", before), within_s=400)
    wait_until("the service", lambda: lab.ask(4) == {"web1": 2, "web2": 2}, within_s=200)
