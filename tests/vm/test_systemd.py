"""l4lb and l7lb as services: they start, reload, are replaced, come back from a crash, and leave the host as
it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.vm.lab import VmLab, wait_until
from tests.support.vm.traffic import Connections, connections

HOST_STATE = (
    "nft list tables; ip -o addr show | sed 's/valid_lft.*//'; ip route show table all | sort; ip rule; "
    "sysctl -a 2>/dev/null | grep -E 'ip_forward |send_redirects|rp_filter|forwarding ' | sort; "
    "cat /proc/net/netfilter/nfnetlink_queue; ls /run/l4lb 2>/dev/null || true"
)
"""What a balancer could leave behind."""


def main_pid(lab: VmLab, unit: str = "l4lb") -> int:
    return int(lab.gateway.run(f"systemctl show -p MainPID --value {unit}"))


def start_count(lab: VmLab) -> int:
    """How often a daemon has said that it is ready, in all of this machine's time."""
    return int(lab.gateway.run("journalctl -u l4lb -o cat | grep -c msg=ready || true"))


def all_go_on(told: Connections) -> bool:
    """Whether every open connection is answered by who has it."""
    return all(told.ask(number) == name for number, name in told.held.items())


@pytest.fixture
def kept(lab: VmLab) -> Iterator[Connections]:
    """Four connections that the kernel has learned."""
    lab.through_gateway()
    lab.balance("nat")
    with connections(lab) as told:
        for number in range(4):
            told.open(number)
        for _ in range(6):
            assert all_go_on(told)
        assert all(row["offloaded"] for row in lab.flows())
        yield told


def test_the_service_says_when_it_is_ready_and_leaves_the_host_as_it_was(lab: VmLab) -> None:
    lab.through_gateway()
    lab.gateway.run("systemctl stop l4lb")
    before = lab.gateway.run(HOST_STATE)
    lab.balance("nat")
    assert lab.ask(4) == {"web1": 2, "web2": 2}
    shown = lab.gateway.run("systemctl show -p ActiveState,User,StatusText l4lb")
    assert "ActiveState=active" in shown
    assert "User=l4lb" in shown
    assert "balancing 2 services" in shown
    assert lab.gateway.run(HOST_STATE) != before
    lab.gateway.run("systemctl stop l4lb")
    assert lab.gateway.run(HOST_STATE) == before


def test_a_reload_takes_the_file_and_a_wrong_file_changes_nothing(lab: VmLab) -> None:
    lab.through_gateway()
    lab.balance("nat")
    pid = main_pid(lab)
    lab.gateway.run("sed -i 's/- 10.2.0.12:8080/# &/' /etc/l4lb/l4lb.yaml; systemctl reload l4lb")
    assert lab.ask(4) == {"web1": 4}
    lab.gateway.run("echo '    nonsense: 1' >>/etc/l4lb/l4lb.yaml")
    assert lab.gateway.ask("systemctl reload l4lb").code != 0
    assert lab.ask(4) == {"web1": 4}
    assert main_pid(lab) == pid


def test_a_crash_is_followed_by_a_restart_and_kept_connections_go_on(lab: VmLab, kept: Connections) -> None:
    pid, starts = main_pid(lab), start_count(lab)
    lab.gateway.run(f"kill -9 {pid}")
    assert all_go_on(kept)  # while nobody is there: a start takes longer
    wait_until("another daemon", lambda: start_count(lab) > starts, within_s=200)
    assert main_pid(lab) not in (0, pid)
    assert lab.ask(4)["failed"] == 0


def test_sigusr2_replaces_the_program_and_every_connection_goes_on(lab: VmLab, kept: Connections) -> None:
    pid, starts = main_pid(lab), start_count(lab)
    lab.gateway.run("systemctl kill -s USR2 l4lb")
    wait_until("another program", lambda: all_go_on(kept) and start_count(lab) > starts, within_s=200)
    assert all_go_on(kept)
    assert main_pid(lab) == pid
    assert len(lab.flows()) == 4
    assert lab.ask(4)["failed"] == 0


@pytest.mark.parametrize("machine", ["gateway", "web1"])
def test_provisioning_changes_nothing_the_second_time(lab: VmLab, machine: str) -> None:
    found = next(one for one in lab.machines if one.name == machine)
    state = (
        "find /opt/l4lb /etc/systemd/system /usr/local/bin /usr/lib/sysusers.d -printf '%p %T@ %i\\n' | sort"
    )
    before = found.run(state)
    said = found.run("/l4lb/vagrant/provision/l4lb.sh")
    assert "nothing to do" in said
    assert found.run(state) == before


PROXY = "10.1.0.1"


def proxied(backends: str) -> str:
    return f"""
l7:
  listeners: [{{listen: "{PROXY}:80"}}]
  routes: [{{pool: web}}]
  pools: {{web: {{backends: [{backends}]}}}}
"""


@pytest.fixture
def proxy(lab: VmLab) -> Iterator[None]:
    """l7lb.service with a listener on the gateway's own address; l4lb.service as it was."""
    lab.through_gateway()
    lab.gateway.run("cp /etc/l4lb/l4lb.yaml /root/l4lb.yaml")
    lab.gateway.write("/etc/l4lb/l4lb.yaml", proxied("10.2.0.11:8080, 10.2.0.12:8080"))
    lab.gateway.run("systemctl start l7lb", timeout_s=200)
    yield
    lab.gateway.run("systemctl stop l7lb; cp /root/l4lb.yaml /etc/l4lb/l4lb.yaml", timeout_s=200)


@pytest.mark.usefixtures("proxy")
def test_the_proxy_as_a_service_starts_reloads_comes_back_and_stops(lab: VmLab) -> None:
    assert set(lab.ask(8, address=PROXY)) == {"web1", "web2"}
    assert "User=l4lb" in lab.gateway.run("systemctl show -p User l7lb")
    pid = main_pid(lab, "l7lb")
    load = lab.client.start(f"python3 /tmp/ask.py 500 {PROXY} 80 4")
    lab.gateway.write("/etc/l4lb/l4lb.yaml", proxied("10.2.0.11:8080"))
    lab.gateway.run("systemctl reload l7lb", timeout_s=200)
    assert lab.ask(4, address=PROXY) == {"web1": 4}
    out, _ = load.communicate(timeout=200)
    assert "failed" not in out, out
    assert "web1" in out, out
    assert main_pid(lab, "l7lb") == pid
    lab.gateway.run(f"kill -9 {pid}")
    wait_until("another master", lambda: main_pid(lab, "l7lb") not in (0, pid))
    wait_until("answers", lambda: lab.ask(2, address=PROXY) == {"web1": 2}, within_s=120)
    lab.gateway.run("systemctl stop l7lb", timeout_s=200)
    assert lab.ask(2, address=PROXY) == {"failed": 2}
    assert "ActiveState=inactive" in lab.gateway.run("systemctl show -p ActiveState l7lb")
    assert "l7lb" not in lab.gateway.run("ls /run/l4lb; ps -C l7lb -o comm= || true")
