"""l4lb as a service: it starts, reloads, is replaced, comes back from a crash, and leaves the host as it
was."""

from __future__ import annotations

from tests.support.vm.lab import VIP, VmLab, wait_until


def host_state(lab: VmLab) -> str:
    """What a balancer could leave behind."""
    return lab.gateway.run(
        "nft list tables; ip -o addr show | sed 's/valid_lft.*//'; ip route show table all | sort; ip rule; "
        "sysctl -a 2>/dev/null | grep -E 'ip_forward |send_redirects|rp_filter|forwarding ' | sort; "
        "ls /proc/net/netfilter/ && cat /proc/net/netfilter/nfnetlink_queue; ls /run/l4lb 2>/dev/null || true"
    )


def main_pid(lab: VmLab) -> int:
    return int(lab.gateway.run("systemctl show -p MainPID --value l4lb"))


def test_the_service_starts_and_says_when_it_is_ready(lab: VmLab) -> None:
    lab.through_gateway()
    lab.balance("nat")
    assert lab.gateway.run("systemctl is-active l4lb").strip() == "active"
    assert lab.ask(4) == {"b1": 2, "b2": 2}
    shown = lab.gateway.run("systemctl show -p StatusText,User,CapabilityBoundingSet l4lb")
    assert "User=l4lb" in shown


def test_a_reload_takes_the_file_and_a_wrong_file_changes_nothing(lab: VmLab) -> None:
    lab.through_gateway()
    lab.balance("nat")
    pid = main_pid(lab)
    lab.gateway.run("sed -i 's/- 10.2.0.12:8080/# &/' /etc/l4lb/l4lb.yaml; systemctl reload l4lb")
    assert lab.ask(4) == {"b1": 4}
    lab.gateway.run("echo '    nonsense: 1' >>/etc/l4lb/l4lb.yaml")
    assert lab.gateway.ask("systemctl reload l4lb").code != 0
    assert lab.ask(4) == {"b1": 4}
    assert main_pid(lab) == pid


def test_stopping_leaves_the_host_as_it_was(lab: VmLab) -> None:
    lab.gateway.run("systemctl stop l4lb")
    before = host_state(lab)
    lab.balance("nat")
    assert lab.ask(2)["failed"] == 0
    assert host_state(lab) != before
    lab.gateway.run("systemctl stop l4lb")
    assert host_state(lab) == before


def test_a_crash_is_followed_by_a_restart_and_kept_connections_go_on(lab: VmLab) -> None:
    lab.through_gateway()
    lab.balance("nat")
    pid = main_pid(lab)
    load = lab.client.start(f"wrk -t1 -c4 -d20s --timeout 10s http://{VIP}/")
    wait_until("flows", lambda: lab.l4lb("flows count")["flows"] >= 4)
    lab.gateway.run(f"kill -9 {pid}")
    wait_until(
        "another daemon",
        lambda: main_pid(lab) not in (0, pid) and lab.gateway.ask("l4lb status").code == 0,
    )
    out, _ = load.communicate(timeout=120)
    assert "Socket errors" not in out, out
    assert lab.ask(4)["failed"] == 0


def test_sigusr2_replaces_the_program_without_an_end(lab: VmLab) -> None:
    lab.through_gateway()
    lab.balance("nat")
    pid = main_pid(lab)
    uptime_s = lab.l4lb("status")["uptime_s"]
    load = lab.client.start(f"wrk -t1 -c4 -d15s --timeout 10s http://{VIP}/")
    lab.gateway.run("systemctl kill -s USR2 l4lb")
    out, _ = load.communicate(timeout=120)
    assert "Socket errors" not in out, out
    assert main_pid(lab) == pid
    assert lab.l4lb("status")["uptime_s"] >= uptime_s
    assert lab.gateway.run("systemctl is-active l4lb").strip() == "active"


def test_the_installation_changes_nothing_the_second_time(lab: VmLab) -> None:
    said = lab.gateway.run("/l4lb/scripts/install --wheels /l4lb/dist/wheels")
    assert "nothing to do" in said
