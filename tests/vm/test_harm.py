"""Bad links, and machines that go away: nothing is broken that plain routing would not break."""

from __future__ import annotations

import pytest

from tests.support.vm.lab import VIP, VmLab, wait_until
from tests.support.vm.machines import Machine

NETEM = {
    "loss": "loss 1%",
    "delay": "delay 20ms 5ms",
    "reordering": "delay 5ms reorder 25% 50%",
}


@pytest.fixture(params=list(NETEM))
def bad_links(request: pytest.FixtureRequest, lab: VmLab):
    """The backends' links lose, delay or reorder what they send."""
    for backend in lab.backends:
        backend.run(f"tc qdisc replace dev $(lab-leg) root netem {NETEM[request.param]}")
    yield request.param
    for backend in lab.backends:
        backend.run("tc qdisc del dev $(lab-leg) root")


@pytest.mark.parametrize("forward", ["nat", "dsr"])
def test_bad_links_break_no_transfer_and_no_short_connection(
    lab: VmLab, bad_links: str, forward: str
) -> None:
    lab.through_gateway() if forward == "nat" else lab.past_gateway("dsr")
    lab.balance(forward)
    assert lab.same_file()
    out = lab.client.run(
        f"seq 1000 | xargs -P 16 -n 1 -I_ curl -sS -o /dev/null -w '%{{http_code}}\\n' --max-time 60 http://{VIP}/"
        " | sort | uniq -c",
        timeout_s=900,
    )
    assert out.split() == ["1000", "200"]


def reboot(machine: Machine) -> None:
    """Starts a machine anew and waits until it is another start."""
    before = machine.run("cat /proc/sys/kernel/random/boot_id")
    machine.ask("systemctl reboot")
    machine.forget_connection()

    def is_back() -> bool:
        try:
            return machine.ask("cat /proc/sys/kernel/random/boot_id", timeout_s=20).out not in ("", before)
        except Exception:  # ssh ends in many ways while a machine goes down
            return False

    wait_until(f"{machine.name} to start", is_back, within_s=400)


def test_a_backend_that_reboots_is_left_out_and_comes_back(lab: VmLab) -> None:
    lab.through_gateway()
    lab.balance("nat")
    b2 = lab.backends[1]
    before = b2.run("cat /proc/sys/kernel/random/boot_id")
    b2.ask("systemctl reboot")
    b2.forget_connection()
    wait_until(
        "b2 to be down",
        lambda: "down" in {row["state"] for row in lab.l4lb("backends ls") if row["service"] == "web"},
        within_s=120,
    )
    assert lab.ask(6) == {"b1": 6}
    wait_until("b2 to be up", lambda: lab.ask(4) == {"b1": 2, "b2": 2}, within_s=400)
    assert b2.run("cat /proc/sys/kernel/random/boot_id") != before


def test_a_gateway_that_reboots_serves_again_by_itself(lab: VmLab) -> None:
    lab.through_gateway()
    lab.balance("nat")
    reboot(lab.gateway)
    wait_until("the service", lambda: lab.gateway.ask("l4lb status").code == 0, within_s=200)
    assert lab.ask(4) == {"b1": 2, "b2": 2}
