"""What can be wrong about forwarding modes and what belongs to them, each with the exact line."""

from __future__ import annotations

import pytest

from l4lb.control.config import parse_config
from tests.support.configs import error_of, l4, rows, second, web

V6 = '"[2001:db8::10]:80/tcp"'
V6_BACKEND = '["[2001:db8:2::11]"]'


def with_key(
    name: str, value: str, listen: str = "203.0.113.10:80/tcp", backends: str = "[10.2.0.11]"
) -> str:
    """A service with one more key, whose value stands in line 6 behind `      NAME: `."""
    return web(listen, backends, f"      {name}: {value}\n")


FLOW_TABLE = {
    "no flows": (
        l4("flow_table: {new_flows: 0}"),
        '1:30: l4.flow_table.new_flows: must be a whole number from 1 to 10000000, not "0"',
    ),
    "too many flows": (
        l4("flow_table: {new_flows: 10000001}"),
        '1:30: l4.flow_table.new_flows: must be a whole number from 1 to 10000000, not "10000001"',
    ),
    "unknown key": (
        l4("flow_table: {flows: 1}"),
        '1:19: l4.flow_table.flows: unknown key; did you mean "new_flows"?',
    ),
}

_ADDRESS = "1:31: l4.masquerade.addresses[0]: "
_PORTS = "1:26: l4.masquerade.ports: "

MASQUERADE = {
    "text": (
        l4("masquerade: yes"),
        '1:18: l4.masquerade: must be a mapping with the keys addresses, ports, not "yes"',
    ),
    "nothing": (
        l4("masquerade: ~"),
        "1:18: l4.masquerade: has no value; give it a mapping with the keys addresses, ports, or remove it",
    ),
    "no addresses": (
        l4("masquerade: {addresses: []}"),
        "1:30: l4.masquerade.addresses: the list is empty; add an address of this host, or remove the key",
    ),
    "nothing for an address": (
        l4("masquerade: {addresses: [~]}"),
        _ADDRESS + "has no value; give it an address of this host, or remove it",
    ),
    "network": (
        l4("masquerade: {addresses: [10.2.0.0/24]}"),
        _ADDRESS + '"10.2.0.0/24" is not an address; name single addresses',
    ),
    "port": (
        l4("masquerade: {addresses: ['10.2.0.1:80']}"),
        _ADDRESS + '"10.2.0.1:80" is not an address; leave the port out',
    ),
    "name": (
        l4("masquerade: {addresses: [gateway]}"),
        _ADDRESS + '"gateway" is not an IP address; names are not looked up',
    ),
    "no IPv6": (
        l4("masquerade: {addresses: ['2001::db8::1']}"),
        _ADDRESS + '"2001::db8::1" is not an IPv6 address; write it as in 2001:db8::1',
    ),
    "loopback": (
        l4("masquerade: {addresses: [127.0.0.1]}"),
        _ADDRESS + "127.0.0.1 is a loopback address, which packets cannot be routed to; use another",
    ),
    "twice": (
        l4("masquerade: {addresses: ['2001:db8::1', 10.2.0.1, '2001:DB8:0::1']}"),
        "1:56: l4.masquerade.addresses[2]: 2001:db8::1 stands here twice; remove one of the two",
    ),
    "65 addresses": (
        l4("masquerade: {addresses: [" + ", ".join(f"10.2.0.{n}" for n in range(10, 75)) + "]}"),
        "1:735: l4.masquerade.addresses[64]: there are 65 addresses, and there is room for 64; "
        "remove the others",
    ),
    "one port": (
        l4("masquerade: {ports: 1024}"),
        _PORTS + '"1024" is not a range of ports; write its first and last, as in "1024-32767"',
    ),
    "any port": (
        l4("masquerade: {ports: any}"),
        _PORTS + '"any" is not a range of ports; write its first and last, as in "1024-32767"',
    ),
    "list of ports": (
        l4("masquerade: {ports: [1024, 32767]}"),
        _PORTS + "must be a range of ports such as 1024-32767, not a list",
    ),
    "backwards": (
        l4("masquerade: {ports: 32767-1024}"),
        _PORTS + 'the port range 32767-1024 runs backwards; write "1024-32767"',
    ),
    "port 65536": (
        l4("masquerade: {ports: 1024-65536}"),
        _PORTS + "port 65536 is out of range; use 1 to 65535",
    ),
    "no port behind the dash": (
        l4("masquerade: {ports: 1024-}"),
        _PORTS + '"" is not a port; use a number from 1 to 65535',
    ),
    "255 ports": (
        l4("masquerade: {ports: 1024-1278}"),
        _PORTS + "must be a range of at least 256 ports, not 1024-1278 with 255",
    ),
}

_SOURCE = "1:25: l4.tunnel.sources[0]: "

TUNNEL = {
    "unknown key": (
        l4("tunnel: {source: x}"),
        '1:15: l4.tunnel.source: unknown key; did you mean "sources"?',
    ),
    "no sources": (
        l4("tunnel: {sources: []}"),
        "1:24: l4.tunnel.sources: the list is empty; add a network such as 198.18.0.0/15, or remove the key",
    ),
    "host bits": (
        l4("tunnel: {sources: [198.18.1.0/15]}"),
        _SOURCE + '"198.18.1.0/15" has bits of a host behind the network\'s 15; write "198.18.0.0/15", '
        'or "198.18.1.0" for the one address',
    ),
    "two of a family": (
        l4("tunnel: {sources: [198.18.0.0/15, '100::/64', 10.9.0.0/16]}"),
        "1:52: l4.tunnel.sources[2]: 10.9.0.0/16 is the second IPv4 network, after 198.18.0.0/15; "
        "remove one of the two",
    ),
    "twice": (
        l4("tunnel: {sources: [198.18.0.0/15, 198.18.0.0/15]}"),
        "1:40: l4.tunnel.sources[1]: 198.18.0.0/15 stands here twice; remove one of the two",
    ),
    "everything": (
        l4("tunnel: {sources: [0.0.0.0/0]}"),
        _SOURCE + "0.0.0.0/0 overlaps with 0.0.0.0/8, from where hosts take no packets; use another network",
    ),
    "multicast": (
        l4("tunnel: {sources: ['ff05::/16']}"),
        _SOURCE + "ff05::/16 overlaps with ff00::/8, from where hosts take no packets; use another network",
    ),
    "port 0": (
        l4("tunnel: {port: 0}"),
        '1:21: l4.tunnel.port: must be a whole number from 1 to 65535, not "0"',
    ),
}

_ALLOW = "6:14: l4.services[0].allow: "
_LIMIT = "must be a whole number from 1 to 10000000, not "

SERVICE = {
    "forward": (
        with_key("forward", "drs"),
        '6:16: l4.services[0].forward: unknown value "drs"; did you mean "dsr"?',
    ),
    "on_failure": (
        with_key("on_failure", "accept"),
        '6:19: l4.services[0].on_failure: unknown value "accept"; known here: drop, hash, pass',
    ),
    "limits": (
        with_key("limits", "100"),
        '6:15: l4.services[0].limits: must be a mapping with the keys new_flows, flows, not "100"',
    ),
    "no new flows": (
        with_key("limits", "{new_flows: 0}"),
        f'6:27: l4.services[0].limits.new_flows: {_LIMIT}"0"',
    ),
    "many flows": (
        with_key("limits", "{flows: 10000001}"),
        f'6:23: l4.services[0].limits.flows: {_LIMIT}"10000001"',
    ),
    "nobody": (
        with_key("allow", "[]"),
        _ALLOW + "the list is empty; add a network such as 10.0.0.0/8, or remove the key",
    ),
    "allow is a mapping": (
        with_key("allow", "{}"),
        _ALLOW + "must be a network such as 10.0.0.0/8, not a mapping",
    ),
    "no network": (
        with_key("allow", "[10.0.0.0/8, example.com]"),
        '6:27: l4.services[0].allow[1]: "example.com" is not a network; '
        "write an address or a network such as 10.0.0.0/8 or 2001:db8::/32",
    ),
    "leading zero": (
        with_key("allow", "010.0.0.0/8"),
        _ALLOW + '"010.0.0.0/8" is not a network; '
        "write an address or a network such as 10.0.0.0/8 or 2001:db8::/32",
    ),
    "zone": (
        with_key("allow", '"fe80::1%eth0"', V6, V6_BACKEND),
        _ALLOW + '"fe80::1%eth0" is not a network; '
        "write an address or a network such as 10.0.0.0/8 or 2001:db8::/32",
    ),
    "33 bits": (
        with_key("allow", "10.0.0.0/33"),
        _ALLOW + '"10.0.0.0/33" is not a network; behind the "/" stands a number from 0 to 32',
    ),
    "129 bits": (
        with_key("allow", '"2001:db8::/129"', V6, V6_BACKEND),
        _ALLOW + '"2001:db8::/129" is not a network; behind the "/" stands a number from 0 to 128',
    ),
    "mask": (
        with_key("allow", "10.0.0.0/255.0.0.0"),
        _ALLOW + '"10.0.0.0/255.0.0.0" is not a network; behind the "/" stands a number from 0 to 32',
    ),
    "host bits": (
        with_key("deny", "[192.0.2.0/24, 10.1.2.3/8]"),
        '6:28: l4.services[0].deny[1]: "10.1.2.3/8" has bits of a host behind the network\'s 8; '
        'write "10.0.0.0/8", or "10.1.2.3" for the one address',
    ),
    "host bits of IPv6": (
        with_key("allow", '"[2001:db8::1/32]"', V6, V6_BACKEND),
        _ALLOW + '"[2001:db8::1/32]" has bits of a host behind the network\'s 32; '
        'write "2001:db8::/32", or "2001:db8::1" for the one address',
    ),
    "mapped": (
        with_key("allow", '"::ffff:10.0.0.0/104"', V6, V6_BACKEND),
        _ALLOW + '"::ffff:10.0.0.0/104" is an IPv4 network in IPv6 form; write "10.0.0.0/8"',
    ),
    "twice": (
        with_key("allow", "[10.1.2.3, 10.1.2.3/32]"),
        "6:25: l4.services[0].allow[1]: 10.1.2.3/32 stands here twice; remove one of the two",
    ),
    "other family": (
        with_key("deny", "[10.0.0.0/8, '2001:db8::/32']"),
        "6:26: l4.services[0].deny[1]: is IPv6, but the service listens on 203.0.113.10:80/tcp; "
        "use IPv4 networks",
    ),
    "family of the clients, not of the servers": (
        with_key("allow", "10.0.0.0/8", V6, "[10.2.0.11]") + "      forward: ipip\n",
        _ALLOW + "is IPv4, but the service listens on [2001:db8::10]:80/tcp; use IPv6 networks",
    ),
}

_BACKEND = "5:18: l4.services[0].backends[0]: "

MODES = {
    **{
        f"port with {forward}": (
            with_key("forward", forward, backends="[10.2.0.11:8080]"),
            _BACKEND + f"with {forward} packets keep their port, and not all come for port 8080; "
            "leave the port out, or use nat or masquerade",
        )
        for forward in ("dsr", "ipip", "gue")
    },
    "one of two kept ports": (
        with_key(
            "forward", "dsr", "[203.0.113.10:80/tcp, 203.0.113.10:443/tcp]", "[10.2.0.11, 10.2.0.12:80]"
        ),
        "5:29: l4.services[0].backends[1]: with dsr packets keep their port, and not all come for port 80; "
        "leave the port out, or use nat or masquerade",
    ),
    "range to one port with dsr": (
        with_key("forward", "dsr", "203.0.113.10:80-81/tcp", "[10.2.0.11:80]"),
        _BACKEND + "a range of 2 ports (203.0.113.10:80-81/tcp) cannot go to one port; "
        "leave the port out, so that packets keep theirs",
    ),
    "the same server with its kept port": (
        with_key("forward", "gue", backends="[10.2.0.11, 10.2.0.11:80]"),
        "5:29: l4.services[0].backends[1]: 10.2.0.11:80 is the same server as l4.services[0].backends[0]; "
        "remove one of the two",
    ),
    **{
        f"other family with {forward}": (
            with_key("forward", forward, backends=V6_BACKEND),
            _BACKEND + "is IPv6, but the service listens on 203.0.113.10:80/tcp; use an IPv4 address",
        )
        for forward in ("nat", "masquerade", "dsr")
    },
    "a check through the VIP to the other family": (
        with_key("forward", "ipip\n      health: {type: tcp, via: vip}", backends=V6_BACKEND),
        _BACKEND + "is IPv6, and a check cannot go there through 203.0.113.10; use via: backend",
    ),
    "listens of two families in a tunnel": (
        with_key("forward", "ipip", "[203.0.113.10:80/tcp, '[2001:db8::1]:80/tcp']"),
        "4:37: l4.services[0].listen[1]: is IPv6, but the service listens on 203.0.113.10:80/tcp; "
        "use one service a family",
    ),
    "five addresses with dsr": (
        with_key("forward", "dsr", "[" + ", ".join(f"203.0.113.1{n}:80/tcp" for n in range(5)) + "]"),
        "4:100: l4.services[0].listen[4]: a service with dsr has at most 4 addresses, "
        "203.0.113.14 is one more; split the service",
    ),
    **{
        f"hash with {forward}": (
            with_key("forward", forward) + "      on_failure: hash\n",
            f"7:19: l4.services[0].on_failure: hash leaves packets to the kernel, and {forward} is nothing "
            "that it can do alone; use drop or pass",
        )
        for forward in ("masquerade", "ipip", "gue")
    },
    **{
        f"a circle with {forward}": (
            with_key("forward", forward, backends="[203.0.113.10]"),
            _BACKEND
            + '203.0.113.10 is an address that service "web" listens on, packets would go in a circle; '
            "name the servers themselves",
        )
        for forward in ("masquerade", "dsr", "ipip", "gue")
    },
    "a circle through both families": (
        with_key("forward", "ipip", backends="['[2001:db8::10]']") + second(V6, V6_BACKEND),
        _BACKEND + '2001:db8::10 is an address that service "api" listens on, packets would go in a circle; '
        "name the servers themselves",
    ),
}

BETWEEN = {
    "VIP as source": (
        web(more="  masquerade: {addresses: [10.2.0.1, 203.0.113.10]}\n"),
        "6:38: l4.masquerade.addresses[1]: "
        '203.0.113.10 is an address that service "web" listens on, answers could not be told from requests; '
        "use an address of this host that nothing listens on",
    ),
    "backend as source": (
        web(more="  masquerade: {addresses: [10.2.0.1, 10.2.0.11]}\n"),
        "6:38: l4.masquerade.addresses[1]: "
        '10.2.0.11 is a backend of service "web"; use an address of this host',
    ),
    "no source of the family": (
        web(
            more=second(V6, V6_BACKEND) + "      forward: masquerade\n  masquerade: {addresses: [10.2.0.1]}\n"
        ),
        "9:16: l4.services[1].forward: masquerade needs an IPv6 address as its source, "
        "and l4.masquerade.addresses has none; add one",
    ),
    "VIP within the outer sources": (
        web(more="  tunnel: {sources: ['2001:db8::/32', 203.0.113.0/24]}\n"),
        '6:39: l4.tunnel.sources[1]: 203.0.113.0/24 holds 203.0.113.10 of service "web", and a server takes '
        "no packets from its own addresses; use a network without VIPs and backends",
    ),
    "backend within the outer sources": (
        web(more="  tunnel: {sources: 10.2.0.11}\n"),
        '6:21: l4.tunnel.sources: 10.2.0.11/32 holds 10.2.0.11 of service "web", and a server takes '
        "no packets from its own addresses; use a network without VIPs and backends",
    ),
    "17 listens for one endpoint of nat beside dsr": (
        web(
            "[" + ", ".join(f"203.0.113.10:{port}/tcp" for port in range(1, 18)) + "]",
            "[10.2.0.9, 10.2.0.11:8080]",
            second(backends="[10.2.0.11]") + "      forward: dsr\n",
        ),
        "5:28: l4.services[0].backends[1]: 10.2.0.11:8080/tcp would answer for more than 16 listens; "
        "give the server further addresses or ports",
    ),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    rows(
        flow_table=FLOW_TABLE,
        masquerade=MASQUERADE,
        tunnel=TUNNEL,
        service=SERVICE,
        modes=MODES,
        between=BETWEEN,
    ),
)
def test_the_error_is_one_line_with_its_position(text: str, expected: str) -> None:
    assert error_of(lambda: parse_config(text, "lb.yaml")) == f"lb.yaml:{expected}"
