"""What a backend host needs, as data, and the commands that it becomes."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from l4lb.control.realserver import Clamp, GuePort, HostVip, Nic, Setting, Tunnel, Wish, commands, plan
from l4lb.errors import ConfigError
from l4lb.model import Forward

V4, V6 = ip_address("203.0.113.10"), ip_address("2001:db8:f::10")
MINE4, MINE6 = ip_address("10.2.0.11"), ip_address("2001:db8:2::11")
NIC = Nic("eth0", 1500, (MINE4, MINE6))


def steps(kind, wish, nic=NIC):
    return [step for step in plan(wish, nic) if isinstance(step, kind)]


def test_direct_return_over_ipv4_is_silence_and_the_address_last():
    planned = plan(Wish((V4,), Forward.DSR), NIC)
    assert [(step.path, step.value) for step in planned[:-1]] == [
        ("ipv4/conf/all/arp_ignore", "1"),
        ("ipv4/conf/eth0/arp_ignore", "1"),
        ("ipv4/conf/all/arp_announce", "2"),
        ("ipv4/conf/eth0/arp_announce", "2"),
    ]
    assert planned[-1] == HostVip(V4)


def test_direct_return_over_ipv6_is_the_address_alone():
    assert plan(Wish((V6,), Forward.DSR), NIC) == (HostVip(V6),)


@pytest.mark.parametrize(
    ("forward", "vip", "backend", "kind", "mtu", "mss"),
    [
        (Forward.IPIP, V4, MINE4, "ipip", 1480, 1440),
        (Forward.IPIP, V6, MINE4, "sit", 1480, 1420),
        (Forward.IPIP, V4, MINE6, "ip6tnl", 1460, 1420),
        (Forward.IPIP, V6, MINE6, "ip6tnl", 1460, 1400),
        (Forward.GUE, V4, MINE4, "ipip", 1468, 1428),
        (Forward.GUE, V6, MINE4, "sit", 1468, 1408),
        (Forward.GUE, V4, MINE6, "ip6tnl", 1448, 1408),
        (Forward.GUE, V6, MINE6, "ip6tnl", 1448, 1388),
    ],
)
def test_tunnels_by_families(forward, vip, backend, kind, mtu, mss):
    wish = Wish((vip,), forward, backends=(backend,))
    assert steps(Tunnel, wish) == [Tunnel(kind, backend, mtu)]
    assert steps(Clamp, wish) == [Clamp((vip,), mss)]
    ports = [GuePort(backend.version, 6080)] if forward is Forward.GUE else []
    assert steps(GuePort, wish) == ports
    assert steps(HostVip, wish) == [HostVip(vip, f"l4lb-{kind}" if vip == V4 else "lo")]
    loosened = [s.path for s in steps(Setting, wish) if s.path.endswith("rp_filter")]
    assert loosened == ([f"ipv4/conf/l4lb-{kind}/rp_filter"] if vip == V4 else [])


def test_without_backend_the_tunnel_ends_at_the_address_of_the_vips_family():
    tunnels = steps(Tunnel, Wish((V6, V4), Forward.IPIP))
    assert [(t.kind, t.local) for t in tunnels] == [("ipip", MINE4), ("ip6tnl", MINE6)]


def test_an_interface_of_one_family_carries_both():
    tunnels = steps(Tunnel, Wish((V4, V6), Forward.GUE), Nic("eth0", 1500, (MINE4,)))
    assert [(t.kind, t.local) for t in tunnels] == [("ipip", MINE4), ("sit", MINE4)]
    over6 = Wish((V4, V6), Forward.GUE, backends=(MINE6,))
    assert [t.kind for t in steps(Tunnel, over6)] == ["ip6tnl"]
    assert steps(GuePort, over6) == [GuePort(6, 6080)]


def test_a_device_that_decapsulates_replaces_tunnel_and_port_only():
    wish = Wish((V4,), Forward.GUE, device="decap0")
    assert not steps(Tunnel, wish) + steps(GuePort, wish)
    assert steps(Clamp, wish) == [Clamp((V4,), 1428)]
    assert steps(Setting, wish)[-1].path == "ipv4/conf/decap0/rp_filter"


def test_the_mtu_of_the_path_counts_and_ipv6_keeps_its_minimum():
    assert steps(Clamp, Wish((V4,), Forward.IPIP, mtu=1400)) == [Clamp((V4,), 1340)]
    small = Wish((V4, V6), Forward.IPIP, mtu=1300, backends=(MINE6,))
    assert steps(Tunnel, small) == [Tunnel("ip6tnl", MINE6, 1280)]
    assert steps(Clamp, small) == [Clamp((V4,), 1220), Clamp((V6,), 1200)]


@pytest.mark.parametrize(
    ("wish", "nic", "says"),
    [
        (Wish((MINE4,), Forward.DSR), NIC, "an address of eth0"),
        (Wish((V4,), Forward.DSR, device="tunl0"), NIC, "for tunnels"),
        (Wish((V4,), Forward.DSR, mtu=1400), NIC, "for tunnels"),
        (Wish((V4,), Forward.IPIP, backends=(MINE4, ip_address("10.2.0.12"))), NIC, "at most one"),
        (Wish((V4,), Forward.IPIP), Nic("eth0", 1500, ()), "no address that a tunnel"),
        (Wish((V4,), Forward.IPIP), Nic("eth0", 590, (MINE4,)), "too little room"),
    ],
)
def test_what_makes_no_sense_is_a_config_error(wish, nic, says):
    with pytest.raises(ConfigError, match=says):
        plan(wish, nic)


def test_commands():
    assert commands(Tunnel("ip6tnl", MINE6, 1460)) == [
        "# modprobe ip6_tunnel",
        "ip link add l4lb-ip6tnl mtu 1460 type ip6tnl mode any local 2001:db8:2::11",
        "ip link set l4lb-ip6tnl up",
    ]
    assert commands(GuePort(4, 6080)) == ["# modprobe fou", "ip fou add port 6080 gue"]
    assert commands(GuePort(6, 7)) == ["# modprobe fou6", "ip -6 fou add port 7 gue"]
    assert commands(HostVip(V6)) == ["ip addr replace 2001:db8:f::10/128 dev lo nodad preferred_lft 0"]


@pytest.mark.parametrize(
    ("interface", "command"),
    [
        ("eth0", "sysctl -qw net.ipv4.conf.eth0.arp_ignore=1"),
        ("eth0.100", "sysctl -qw net/ipv4/conf/eth0.100/arp_ignore=1"),
        ("a;b", "sysctl -qw 'net.ipv4.conf.a;b.arp_ignore=1'"),
    ],
)
def test_a_setting_is_one_word_whatever_the_interface_is_called(interface, command):
    assert commands(Setting(f"ipv4/conf/{interface}/arp_ignore", "1", ("1",))) == [command]
