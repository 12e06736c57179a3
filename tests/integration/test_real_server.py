"""`l4lb real-server` on backends of the lab: what it does, that it is enough, and that it is undone."""

from __future__ import annotations

import json
import shutil
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from tests.support import servers
from tests.support.lab import ROOT, Host, Lab, unique_prefix, wait_for
from tests.support.servers import real_server

pytestmark = pytest.mark.root

VIP4, VIP6 = "203.0.113.10", "2001:db8:f::10"
BOTH = ("--vip", VIP4, "--vip", VIP6)
ETH_P_ARP = 0x0806
TUNNEL = ("--tunnel-device", "tun7")


def snapshot(host: Host) -> dict[str, str]:
    """All that the command could have changed, without what tells two backends apart."""
    commands = {
        "nft": ["nft", "list", "ruleset"],
        "links": ["ip", "-o", "-br", "link", "show", "up"],
        "lo": ["ip", "addr", "show", "dev", "lo"],
        "tun7": ["ip", "-4", "addr", "show", "dev", "tun7"],
        "rules": ["ip", "rule"],
        "sysctls": ["sysctl", "-ae", "--pattern", r"^net\.ipv[46]\.conf"],
    }
    shown = {name: host.run(command).stdout for name, command in commands.items()}
    shown["links"] = "\n".join(line.split("@")[0] for line in shown["links"].splitlines())
    # Made of the link's address.
    shown["sysctls"] = "\n".join(s for s in shown["sysctls"].splitlines() if "stable_secret" not in s)
    return shown


@pytest.fixture(scope="module")
def segment() -> Iterator[Lab]:
    with Lab(unique_prefix("real"), 2, shape="past-gateway") as lab:
        for host in lab.backends:
            host.run(["ip", "tuntap", "add", "tun7", "mode", "tun"])
            host.run(["ip", "link", "set", "tun7", "up"])
            # A strict filter as distributions have it.
            host.run(["sysctl", "-qw", "net.ipv4.conf.tun7.rp_filter=1"])
        # Who does not answer is given up soon.
        for family in ("ipv4", "ipv6"):
            lab.gateway.run(["sysctl", "-qw", f"net.{family}.neigh.lan0.retrans_time_ms=100"])
        yield lab


@pytest.fixture
def backend(segment: Lab) -> Iterator[Host]:
    yield segment.host("b1")
    for host in segment.backends:
        if (host.directory / f"{host.name}.real-server").exists():
            real_server(host, "--undo")


def steps(host: Host, *words: str) -> dict[str, bool]:
    """What --apply told: thing → changed."""
    told = json.loads(real_server(host, *words, "--apply", "--json").stdout)
    return {step["what"]: step["changed"] for step in told["steps"]}


@pytest.mark.parametrize(
    "words",
    [BOTH, ("--vip", VIP6), (*BOTH, "--forward", "ipip", *TUNNEL), (*BOTH, "--forward", "gue", *TUNNEL)],
    ids=["dsr", "dsr6", "ipip", "gue"],
)
def test_apply_twice_then_undo_leaves_the_host_as_it_was(backend: Host, words: tuple[str, ...]) -> None:
    before = snapshot(backend)
    assert all(steps(backend, *words).values())
    journal = backend.directory / "b1.real-server"
    applied, written = snapshot(backend), journal.read_bytes()
    assert applied != before
    assert not any(steps(backend, *words).values())
    assert (snapshot(backend), journal.read_bytes()) == (applied, written)
    real_server(backend, "--undo")
    assert snapshot(backend) == before
    assert not journal.exists()
    assert real_server(backend, "--undo").stdout == "nothing is applied\n"


@pytest.mark.parametrize(
    "words", [BOTH, (*BOTH, "--forward", "ipip", *TUNNEL), (*BOTH, "--forward", "gue", *TUNNEL)]
)
def test_the_printed_commands_do_the_same(segment: Lab, backend: Host, words: tuple[str, ...]) -> None:
    by_hand = segment.host("b2")
    before = snapshot(by_hand)
    assert before == snapshot(backend)
    script = real_server(by_hand, *words).stdout
    assert snapshot(by_hand) == before, "printing changes nothing"
    real_server(backend, *words, "--apply")
    for _ in range(2):
        by_hand.run(["sh", "-e"], input=script)
        assert snapshot(by_hand) == snapshot(backend)
    # What was done by hand is not the command's to undo; so another run takes it back.
    assert not any(steps(by_hand, *words).values())
    real_server(by_hand, "--undo")
    assert snapshot(by_hand) == snapshot(backend)
    device = "tun7" if "tun7" in words else "lo"
    undo = f"ip addr del {VIP4}/32 dev {device}; ip addr del {VIP6}/128 dev lo; nft flush ruleset\n"
    undo += "sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.eth0.arp_ignore=0\n"
    undo += "sysctl -qw net.ipv4.conf.all.arp_announce=0 net.ipv4.conf.eth0.arp_announce=0\n"
    undo += "sysctl -qw net.ipv4.conf.tun7.rp_filter=1\n"
    by_hand.run(["sh", "-e"], input=undo)
    assert snapshot(by_hand) == before


def test_a_dry_run_changes_nothing_and_says_what_would_be(backend: Host) -> None:
    before = snapshot(backend)
    words = (*BOTH, "--forward", "ipip", *TUNNEL)
    shown = real_server(backend, *words, "--apply", "--dry-run").stdout
    assert snapshot(backend) == before
    assert f"would set up: {VIP4} on tun7\n" in shown
    assert f"would set up: {VIP6} on lo\n" in shown
    assert f"would set up: MSS 1440 from {VIP4}\n" in shown
    real_server(backend, *words, "--apply")
    applied = snapshot(backend)
    shown = real_server(backend, "--undo", "--dry-run").stdout
    assert f"would have removed {VIP4} from tun7\n" in shown
    assert snapshot(backend) == applied


def test_runs_add_up_and_undo_takes_back_all(backend: Host) -> None:
    before = snapshot(backend)
    steps(backend, "--vip", VIP4)
    second = steps(backend, "--vip", "203.0.113.11", "--forward", "ipip", *TUNNEL)
    assert second["203.0.113.11 on tun7"] and not second["net.ipv4.conf.all.arp_ignore=1"]
    moved = steps(backend, "--vip", "203.0.113.11", "--forward", "gue", *TUNNEL)
    assert [what for what, changed in moved.items() if changed] == ["MSS 1428 from 203.0.113.11"]
    rules = backend.run(["nft", "list", "ruleset"]).stdout
    assert rules.count("elements = { 203.0.113.11 }") == 1
    assert VIP4 in backend.run(["ip", "addr", "show", "dev", "lo"]).stdout
    real_server(backend, "--undo")
    assert snapshot(backend) == before


def test_what_the_operator_has_set_stays(backend: Host) -> None:
    backend.run(["ip", "addr", "add", f"{VIP4}/32", "dev", "lo"])
    backend.run(["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=2"])
    try:
        before = snapshot(backend)
        told = steps(backend, "--vip", VIP4)
        assert told[f"{VIP4} on lo"] is False
        assert told["net.ipv4.conf.all.arp_ignore=2"] is False
        real_server(backend, "--undo")
        assert snapshot(backend) == before
    finally:
        backend.run(["ip", "addr", "del", f"{VIP4}/32", "dev", "lo"])
        backend.run(["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0"])


def test_a_run_that_fails_takes_back_what_it_did_and_no_more(backend: Host) -> None:
    steps(backend, "--vip", VIP4)
    applied = snapshot(backend)
    backend.run(["sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=1"])
    try:
        during = snapshot(backend)
        words = ("--vip", VIP4, "--vip", VIP6, "--forward", "ipip", *TUNNEL, "--apply")
        failed = real_server(backend, *words, check=False)
        assert failed.returncode == 1
        (line,) = failed.stderr.splitlines()
        assert VIP6 in line and "disable_ipv6" in line
        assert snapshot(backend) == during
    finally:
        backend.run(["sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=0"])
    assert snapshot(backend)["nft"] == applied["nft"]


@pytest.mark.parametrize("forward", ["ipip", "gue"])
def test_the_kernels_own_tunnels_work_or_are_named_as_missing(backend: Host, forward: str) -> None:
    before = snapshot(backend)
    words = ("--vip", VIP4, "--forward", forward, "--apply")
    done = real_server(backend, *words, check=False)
    if done.returncode == 0:
        assert "l4lb-ipip" in snapshot(backend)["links"]
        assert not any(steps(backend, *words[:-1]).values())
        real_server(backend, "--undo")
    else:
        assert done.returncode == 3
        (line,) = done.stderr.splitlines()
        assert "the kernel" in line and "--tunnel-device" in line
    assert snapshot(backend) == before


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_without_the_capability_it_prints_but_does_not_apply(backend: Host) -> None:
    powerless = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    program = [ROOT / ".venv/bin/l4lb", "--socket", backend.directory / "b1.sock", "real-server"]
    shown = backend.run([*powerless, *program, *BOTH])
    assert f"ip addr replace {VIP4}/32 dev lo" in shown.stdout
    for action in (("--apply", *BOTH), ("--undo",)):
        refused = backend.run([*powerless, *program, *action], check=False)
        assert refused.returncode == 3
        (line,) = refused.stderr.splitlines()
        assert "CAP_NET_ADMIN" in line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "at least one"),
        (("--vip", "nothing"), "--vip: "),
        (("--vip", "127.0.0.1"), "loopback"),
        (("--vip", "10.2.0.11"), "an address of eth0"),
        (("--vip", VIP4, "--forward", "nat"), "--forward"),
        (("--vip", VIP4, "--interface", "eth9"), "no such interface"),
        (("--vip", VIP6, "--forward", "ipip", "--tunnel-device", "eth9"), "no such interface"),
        (("--vip", VIP4, "--undo"), "leave out --vip"),
        (("--vip", VIP4, "--mtu", "1400"), "for tunnels"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_2(backend: Host, words: tuple[str, ...], says: str) -> None:
    wrong = real_server(backend, *words, check=False)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    (line,) = wrong.stderr.splitlines()
    assert says in line


def test_the_interface_is_that_of_the_default_route_or_the_only_one(segment: Lab) -> None:
    assert json.loads(real_server(segment.host("b1"), "--vip", VIP4, "--json").stdout)["interface"] == "eth0"
    several = real_server(segment.client, "--vip", VIP4, check=False)
    assert several.returncode == 2
    assert "no default route; name it with --interface" in several.stderr
    with Lab(unique_prefix("real"), 1, shape="own-router") as lab:
        shown = real_server(lab.host("b1"), *BOTH, "--json").stdout
        assert json.loads(shown)["interface"] == "eth0"


def neighbour(host: Host, address: str) -> str:
    """What a host of the segment finds out about an address there: FAILED, or who has it."""
    host.run(["ip", "neigh", "flush", "dev", "lan0"])
    length = 128 if ":" in address else 32
    host.run(["ip", "route", "replace", f"{address}/{length}", "dev", "lan0"])
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with host.enter(), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"?", (address, 9))

    def resolved() -> str:
        shown = host.run(["ip", "neigh", "show", address, "dev", "lan0"]).stdout
        return shown if "lladdr" in shown or "FAILED" in shown else ""

    try:
        return wait_for(resolved, 10, f"{address} to be resolved")
    finally:
        host.run(["ip", "route", "del", f"{address}/{length}", "dev", "lan0"])


@pytest.mark.parametrize("words", [(), ("--forward", "ipip", *TUNNEL)], ids=["dsr", "ipip"])
def test_on_the_segment_the_backend_does_not_answer_for_the_vip(
    segment: Lab, backend: Host, words: tuple[str, ...]
) -> None:
    for vip, length in ((VIP4, 32), (VIP6, 128)):
        backend.run(["ip", "addr", "add", f"{vip}/{length}", "dev", "lo"])
    assert "lladdr" in neighbour(segment.gateway, VIP4), "so that the test is one"
    for vip, length in ((VIP4, 32), (VIP6, 128)):
        backend.run(["ip", "addr", "del", f"{vip}/{length}", "dev", "lo"])
    real_server(backend, *BOTH, *words, "--apply")
    assert "FAILED" in neighbour(segment.gateway, VIP4)
    assert "FAILED" in neighbour(segment.gateway, VIP6)


def test_the_backend_asks_for_neighbours_in_its_own_name(segment: Lab, backend: Host) -> None:
    real_server(backend, *BOTH, "--apply")
    backend.run(["ip", "neigh", "flush", "all"])
    with segment.gateway.enter():
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP))
    with listener:
        listener.bind(("lan0", ETH_P_ARP))
        listener.settimeout(5)
        with backend.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((VIP4, 0))
            sock.sendto(b"?", ("10.2.0.1", 9))
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            frame = listener.recv(2048)
            operation, sender, target = struct.unpack_from("!6xH6x4s6x4s", frame, 14)
            if operation == 1 and socket.inet_ntoa(target) == "10.2.0.1":
                assert socket.inet_ntoa(sender) == backend.v4
                return
    pytest.fail("the backend asked for nobody")


def test_a_backend_never_chooses_the_vip_for_its_own_connections(backend: Host) -> None:
    real_server(backend, *BOTH, "--apply")
    for family, address, own in (
        (socket.AF_INET, "198.51.100.1", backend.v4),
        (socket.AF_INET6, "2001:db8:99::1", backend.v6),
    ):
        with backend.enter(), socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((address, 9))
            assert sock.getsockname()[0] == own


@pytest.mark.parametrize(
    ("forward", "v4", "v6"), [("dsr", 1460, 1440), ("ipip", 1440, 1400), ("gue", 1428, 1388)]
)
def test_clients_are_told_a_segment_that_fits(
    segment: Lab, backend: Host, forward: str, v4: int, v6: int
) -> None:
    real_server(backend, *BOTH, "--forward", forward, *(TUNNEL if forward != "dsr" else ()), "--apply")
    segment.client.run(["sysctl", "-qw", "net.ipv4.tcp_timestamps=0"])
    server = servers.start_http(backend)
    server.wait_ready()
    for vip, length, via, expected in ((VIP4, 32, backend.v4, v4), (VIP6, 128, backend.v6, v6)):
        segment.gateway.run(["ip", "route", "replace", f"{vip}/{length}", "via", via])
        with segment.client.enter(), socket.create_connection((vip, servers.HTTP_PORT), timeout=5) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == expected
        segment.gateway.run(["ip", "route", "del", f"{vip}/{length}", "via", via])
    # The backend's own addresses announce what they always did.
    with segment.client.enter(), socket.create_connection((backend.v4, servers.HTTP_PORT), timeout=5) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == 1460
    server.process.stop()
