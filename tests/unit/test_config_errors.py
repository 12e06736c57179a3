"""Everything that can be wrong in a configuration, each with the exact line that an operator reads."""

from __future__ import annotations

import pytest

from l4lb.control.config import parse_config
from tests.support.configs import error_of, l4, rows, second, web

_L4_KEYS = (
    "datapath, workers, queue, flow_table, masquerade, tunnel, hash_key, vip_interface, metrics, services"
)

YAML = {
    "empty file": ("", '1:1: l4: missing, the file is empty; begin with "l4:"'),
    "only a comment": ("# nothing\n", '1:1: l4: missing, the file is empty; begin with "l4:"'),
    "nothing behind the mark of a document": (
        "---\n#",
        "2:2: file: has no value; give it a mapping with the keys l4, l7, or remove it",
    ),
    "colon in a value": (
        "l4:\n  datapath: mark: auto\n",
        "2:17: l4: is not YAML: mapping values are not allowed in this context; "
        "check the indentation, colons, quotes and brackets around here",
    ),
    "open bracket": (
        "l4:\n  services: [\n",
        "3:1: l4.services[0]: is not YAML: did not find expected node content; "
        "check the indentation, colons, quotes and brackets around here",
    ),
    "open bracket, no line end": (
        "l4:\n  services: [1",
        "2:15: l4.services[1]: "
        "is not YAML: did not find expected ',' or ']' while parsing a flow sequence from 2:13; "
        "check the indentation, colons, quotes and brackets around here",
    ),
    "tab": (
        "l4:\n\tworkers: 1\n",
        "2:1: l4: "
        "is not YAML: found character that cannot start any token; indent with spaces instead of tabs",
    ),
    "bracketed address without quotes": (
        web("[2001:db8::1]:80/tcp"),
        "4:28: l4.services[0]: "
        "is not YAML: did not find expected key while parsing a block mapping from 3:7; "
        'put quotes around an address in brackets, as in "[2001:db8::1]:80"',
    ),
    "alias": (
        web("&a 203.0.113.10:80/tcp"),
        "4:15: l4.services[0].listen: anchors and aliases are not used here; write the value out",
    ),
    "unknown alias": ("l4: *a\n", "1:5: l4: anchors and aliases are not used here; write the value out"),
    "tag": ("l4: !!map {}\n", '1:5: l4: tags are not used here; remove the "!" and what belongs to it'),
    "tag of an item": (
        web(backends="[!x 10.2.0.11]"),
        '5:18: l4.services[0].backends[0]: tags are not used here; remove the "!" and what belongs to it',
    ),
    "two documents": ("l4: {}\n---\nl4: {}\n", '2:1: file: a second document begins; remove the "---"'),
    "NUL": ("l4:\n  a\0b", "2:4: file: character U+0000 is not text; remove it and save the file as UTF-8"),
    "escape": (
        "l4: \x1b[1m",
        "1:5: file: character U+001B is not text; remove it and save the file as UTF-8",
    ),
    "lone surrogate": (
        "l4: \ud800",
        "1:5: file: character U+D800 is not text; remove it and save the file as UTF-8",
    ),
    "nested too deep": (
        "[" * 100_000,
        "1:33: " + "[0]" * 32 + ": nested deeper than 32 levels; check the brackets",
    ),
    "list as key": (
        "? [a]\n: b\n",
        "1:3: file: a key must be a word, not a list or mapping; check the brackets",
    ),
}

SECTION = {
    "top is a list": ("[]", "1:1: file: must be a mapping with the keys l4, l7, not a list"),
    "top is text": ("hello", '1:1: file: must be a mapping with the keys l4, l7, not "hello"'),
    "no l4": ("{}", "1:1: l4: missing; add this key, it is required"),
    "only the other tier's": ("l7: {}", "1:1: l4: missing; add this key, it is required"),
    "other section": ("l4: {}\nl8: {}", "2:1: l8: unknown key; known here: l4, l7"),
    "null section": (
        "l4:\n",
        f"1:4: l4: has no value; give it a mapping with the keys {_L4_KEYS}, or remove it",
    ),
    "section is a list": ("l4: []", f"1:5: l4: must be a mapping with the keys {_L4_KEYS}, not a list"),
    "no services": ("l4: {workers: 1}", "1:5: l4.services: missing; add this key, it is required"),
    "services twice": (
        l4("services: [], services: []"),
        "1:20: l4.services: the key stands here twice; remove one of the two",
    ),
    "empty services": (l4("services: []"), "1:16: l4.services: the list is empty; add at least one service"),
    "services is a mapping": (
        l4("services: {}"),
        "1:16: l4.services: must be a list of services, not a mapping",
    ),
    "unknown key": (l4("work: 1"), '1:6: l4.work: unknown key; did you mean "workers"?'),
    "later feature": (l4("logging: {}"), f"1:6: l4.logging: unknown key; known here: {_L4_KEYS}"),
    "long key": (l4("x" * 500 + ": 1"), f'1:6: l4."{"x" * 45}...": unknown key; known here: {_L4_KEYS}'),
    "key with a line break": (l4('"a\\nb": 1'), f'1:6: l4."a\\nb": unknown key; known here: {_L4_KEYS}'),
    "datapath": (l4("datapath: marc"), '1:16: l4.datapath: unknown value "marc"; did you mean "mark"?'),
    "later datapath": (
        l4("datapath: xdp"),
        '1:16: l4.datapath: unknown value "xdp"; known here: auto, offload, mark, rewrite, reference',
    ),
    "datapath without value": (
        l4("datapath: , workers: 1"),
        "1:16: l4.datapath: has no value; "
        "give it one of auto, offload, mark, rewrite, reference, or remove it",
    ),
    "0 workers": (l4("workers: 0"), '1:15: l4.workers: must be auto or a whole number from 1 to 64, not "0"'),
    "65 workers": (
        l4("workers: 65"),
        '1:15: l4.workers: must be auto or a whole number from 1 to 64, not "65"',
    ),
    "workers is a list": (
        l4("workers: [1]"),
        "1:15: l4.workers: must be auto or a whole number from 1 to 64, not a list",
    ),
    "queue is a number": (
        l4("queue: 1"),
        '1:13: l4.queue: must be a mapping with the keys first, length, not "1"',
    ),
    "queue beyond the last": (
        l4("queue: {first: 65536}"),
        '1:21: l4.queue.first: must be a whole number from 0 to 65535, not "65536"',
    ),
    "workers beyond the last queue": (
        l4("workers: 4, queue: {first: 65533}"),
        "1:33: l4.queue.first: "
        "4 workers need the queues 65533 to 65541, but the last is 65535; use 65527 or less",
    ),
    "one worker at the last queue": (
        l4("queue: {first: 65534}"),
        "1:21: l4.queue.first: 1 worker needs the queues 65534 to 65536, but the last is 65535; "
        "use 65533 or less",
    ),
    "short queue": (
        l4("queue: {length: 63}"),
        '1:22: l4.queue.length: must be a whole number from 64 to 1048576, not "63"',
    ),
    "quoted number": (
        l4('queue: {length: "64"}'),
        "1:22: l4.queue.length: must be a whole number from 64 to 1048576, not text; remove the quotes",
    ),
    "leading zero": (
        l4("queue: {length: 0100}"),
        '1:22: l4.queue.length: must be a whole number from 64 to 1048576, not "0100"',
    ),
    "huge number": (
        l4("flow_table: {capacity: " + "9" * 9999 + "}"),
        f'1:29: l4.flow_table.capacity: must be a whole number from 1024 to 16777216, not "{"9" * 45}..."',
    ),
    "short key": (
        l4("hash_key: c0ffee"),
        "1:16: l4.hash_key: must be 32 hexadecimal digits, not 6 characters; "
        'make one with "openssl rand -hex 16"',
    ),
    "no hexadecimal digit": (
        l4("hash_key: " + "0123456789abcdeg" * 2),
        "1:16: l4.hash_key: must be 32 hexadecimal digits; remove what is not 0-9 or a-f",
    ),
    "interface": (
        l4("vip_interface: a/b"),
        '1:21: l4.vip_interface: "a/b" is not the name of an interface; see ip link',
    ),
    "long interface": (
        l4("vip_interface: abcdefghijklmnop"),
        '1:21: l4.vip_interface: "abcdefghijklmnop" is not the name of an interface: it has 16 characters, '
        "and there are at most 15; see ip link",
    ),
}

_LISTEN = "4:15: l4.services[0].listen: "

SERVICE = {
    "unknown key": (
        web(more="      schedular: maglev\n"),
        '6:7: l4.services[0].schedular: unknown key; did you mean "scheduler"?',
    ),
    "service is text": (
        l4("services: [web]"),
        "1:17: l4.services[0]: must be a mapping with the keys name, listen, forward, scheduler, on_failure, "
        "allow, deny, limits, affinity, max_connections, one_packet, health, passive, on_down, slow_start, "
        "panic_threshold, drain_timeout, quorum, hysteresis, below_quorum, sorry_server, on_no_backend, "
        'withdraw_vip, backends, not "web"',
    ),
    "no name": (
        l4("services: [{listen: x}]"),
        "1:17: l4.services[0].name: missing; add this key, it is required",
    ),
    "name": (
        web().replace("web", "Web 1"),
        '3:13: l4.services[0].name: "Web 1" is not a name; use the characters a-z, 0-9, _, . and -',
    ),
    "long name": (
        web().replace("web", "w" * 65),
        f'3:13: l4.services[0].name: "{"w" * 45}..." has 65 characters; use at most 64',
    ),
    "scheduler": (
        web(more="      scheduler: least-connection\n"),
        '6:18: l4.services[0].scheduler: unknown value "least-connection"; did you mean "least-connections"?',
    ),
    "forward": (
        web(more="      forward: route\n"),
        '6:16: l4.services[0].forward: unknown value "route"; known here: nat, masquerade, dsr, ipip, gue',
    ),
    "no listen": (web("[]"), _LISTEN + "the list is empty; add an endpoint such as 203.0.113.10:80/tcp"),
    "listen is a mapping": (
        web("{}"),
        _LISTEN + "must be an endpoint such as 203.0.113.10:80/tcp, not a mapping",
    ),
    "listen in a list": (
        web("[203.0.113.10:80/tcp, []]"),
        "4:37: l4.services[0].listen[1]: must be an endpoint such as 203.0.113.10:80/tcp, not a list",
    ),
    "no port": (
        web("203.0.113.10"),
        _LISTEN + '"203.0.113.10" has no port; add one, as in "203.0.113.10:80/tcp"',
    ),
    "no protocol": (
        web("203.0.113.10:80"),
        _LISTEN + '"203.0.113.10:80" has no protocol; add one, as in "203.0.113.10:80/tcp"',
    ),
    "protocol": (web("203.0.113.10:80/tpc"), _LISTEN + 'unknown protocol "tpc"; did you mean "tcp"?'),
    "comma": (
        web("203.0.113.10:80/tcp,udp"),
        _LISTEN + 'several protocols are joined with "+"; write "tcp+udp"',
    ),
    "protocol twice": (
        web("203.0.113.10:80/tcp+tcp"),
        _LISTEN + "the protocol tcp stands here twice; remove one of the two",
    ),
    "port 0": (web("203.0.113.10:0/tcp"), _LISTEN + "port 0 is out of range; use 1 to 65535"),
    "port 70000": (web("203.0.113.10:70000/tcp"), _LISTEN + "port 70000 is out of range; use 1 to 65535"),
    "port name": (
        web("203.0.113.10:http/tcp"),
        _LISTEN + '"http" is not a port; use a number from 1 to 65535',
    ),
    "backwards": (web("203.0.113.10:9-8/tcp"), _LISTEN + 'the port range 9-8 runs backwards; write "8-9"'),
    "range to port 0": (web("203.0.113.10:80-0/tcp"), _LISTEN + "port 0 is out of range; use 1 to 65535"),
    "host name": (
        web("example.com:80/tcp"),
        _LISTEN + '"example.com" is not an IP address; names are not looked up',
    ),
    "bad address": (
        web("203.0.113.256:80/tcp"),
        _LISTEN
        + '"203.0.113.256" is not an IP address; write four numbers from 0 to 255 without leading zeros',
    ),
    "line break in an address": (
        web('"203.0.113.1\\n:80/tcp"'),
        _LISTEN + '"203.0.113.1\\n" is not an IP address; names are not looked up',
    ),
    "IPv6 without brackets": (
        web("2001:db8::1:80/tcp"),
        _LISTEN
        + '"2001:db8::1:80" is not an endpoint; an IPv6 address needs brackets, as in "[2001:db8::1]:80"',
    ),
    "open address bracket": (
        web('"[2001:db8::1:80/tcp"'),
        _LISTEN + '"[2001:db8::1:80" is not an endpoint; the bracket is not closed, add "]"',
    ),
    "no colon": (
        web('"[2001:db8::1]80/tcp"'),
        _LISTEN + '"[2001:db8::1]80" is not an endpoint; a ":" and a port follow the bracket',
    ),
    "bad IPv6": (
        web('"[2001::db8::1]:80/tcp"'),
        _LISTEN + '"2001::db8::1" is not an IPv6 address; write it as in 2001:db8::1',
    ),
    "unspecified": (
        web("0.0.0.0:80/tcp"),
        _LISTEN + "0.0.0.0 is the unspecified address; name the address itself",
    ),
    "loopback": (
        web('"[::1]:80/tcp"'),
        _LISTEN + "::1 is a loopback address, which packets cannot be routed to; use another",
    ),
    "multicast": (
        web("224.0.0.1:80/tcp"),
        _LISTEN + "224.0.0.1 is a multicast address; use a unicast address",
    ),
    "broadcast": (
        web("255.255.255.255:80/tcp"),
        _LISTEN + "255.255.255.255 is the broadcast address; use a unicast address",
    ),
    "mapped": (
        web('"[::ffff:10.0.0.1]:80/tcp"'),
        _LISTEN + '::ffff:a00:1 is an IPv4 address in IPv6 form; write "10.0.0.1"',
    ),
    "zone": (
        web('"[fe80::1%eth0]:80/tcp"'),
        _LISTEN + '"fe80::1%eth0" has a zone; a link-local address cannot be balanced, use a global one',
    ),
    "link-local": (
        web('"[fe80::1]:80/tcp"'),
        _LISTEN + "fe80::1 is a link-local address, which cannot be routed; use a global one",
    ),
    "long listen": (
        web("x" * 5000),
        _LISTEN + f'"{"x" * 45}..." is not an IP address; names are not looked up',
    ),
    "two families": (
        web("[203.0.113.10:80/tcp, '[2001:db8::1]:80/tcp']"),
        "4:37: l4.services[0].listen[1]: is IPv6, but the service listens on 203.0.113.10:80/tcp; "
        "use one service a family",
    ),
}

_BACKEND = "5:18: l4.services[0].backends[0]: "
_WEIGHT = "5:47: l4.services[0].backends[0].weight: must be a whole number from 0 to 65535, not "

_ONE_PACKET = "      one_packet: true\n"
_COUNTED = (
    "6:19: l4.services[0].one_packet: nothing is remembered that limits.flows or max_connections could "
    "count; remove these, or it"
)

ONE_PACKET = {
    "TCP": (
        web(more=_ONE_PACKET),
        "6:19: l4.services[0].one_packet: is for datagrams, and the service listens on TCP only; remove it",
    ),
    "masquerade": (
        web("203.0.113.53:53/udp", more=_ONE_PACKET + "      forward: masquerade\n"),
        "6:19: l4.services[0].one_packet: with masquerade an answer needs a flow that is remembered; "
        "use nat, or remove it",
    ),
    "a limit of flows": (
        web("203.0.113.53:53/udp", more=_ONE_PACKET + "      limits: {flows: 3}\n"),
        _COUNTED,
    ),
    "a limit of a backend": (
        web("203.0.113.53:53/udp", "[{address: 10.2.0.21, max_connections: 3}]", more=_ONE_PACKET),
        _COUNTED,
    ),
    "two listens": (
        web("[203.0.113.53:53/udp, 203.0.113.54:53/udp]", "[10.2.0.21, 10.2.0.22]", more=_ONE_PACKET),
        "5:18: l4.services[0].backends[0]: it answers for 203.0.113.53:53/udp and 203.0.113.54:53/udp, and "
        "with one_packet no flow says for which; give the server an address or port for each",
    ),
    "another service": (
        web("203.0.113.53:53/udp", "[10.2.0.21:5353]", more=_ONE_PACKET)
        + second("203.0.113.54:53/udp", "[10.2.0.21:5353]"),
        "5:18: l4.services[0].backends[0]: it answers for 203.0.113.53:53/udp and 203.0.113.54:53/udp, and "
        "with one_packet no flow says for which; give the server an address or port for each",
    ),
}

OVERFLOW = {
    "nothing says how many": (
        web(
            backends="[{address: 10.2.0.11, max_connections: 3}, 10.2.0.12]",
            more="      scheduler: overflow\n",
        ),
        "5:60: l4.services[0].backends[1]: with overflow it has to be known how many connections a backend "
        "may have; give it max_connections, or a weight above 1, which then says it",
    ),
}

BACKENDS = {
    "no backends": (
        web(backends="[]"),
        "5:17: l4.services[0].backends: the list is empty; add at least one backend",
    ),
    "no list": (
        web(backends="10.2.0.11"),
        '5:17: l4.services[0].backends: must be a list of backends, not "10.2.0.11"',
    ),
    "null": (
        web(backends="[~]"),
        _BACKEND + "has no value; give it an endpoint such as 10.2.0.11:8080, or remove it",
    ),
    "bad address": (
        web(backends="[10.2.0]"),
        _BACKEND + '"10.2.0" is not an IP address; write four numbers from 0 to 255 without leading zeros',
    ),
    "port 0": (web(backends="[10.2.0.11:0]"), _BACKEND + "port 0 is out of range; use 1 to 65535"),
    "huge port": (
        web(backends="[10.2.0.11:" + "9" * 99 + "]"),
        _BACKEND + f'"{"9" * 45}..." is not a port; use a number from 1 to 65535',
    ),
    "brackets without quotes": (
        web(backends="[[2001:db8::11]]"),
        _BACKEND
        + "must be an endpoint such as 10.2.0.11:8080, not a list; put quotes around an address in brackets",
    ),
    "port or address": (
        web(backends="['2001:db8::11:8080']"),
        _BACKEND + '"2001:db8::11:8080" is not an endpoint; an IPv6 address needs brackets, as in '
        '"[2001:db8::11]:8080"',
    ),
    "no address": (
        web(backends="[{weight: 1}]"),
        "5:18: l4.services[0].backends[0].address: missing; add this key, it is required",
    ),
    "unknown key": (
        web(backends="[{address: 10.2.0.11, wieght: 1}]"),
        '5:39: l4.services[0].backends[0].wieght: unknown key; did you mean "weight"?',
    ),
    "later key": (
        web(backends="[{address: 10.2.0.11, zone: eu}]"),
        "5:39: l4.services[0].backends[0].zone: unknown key; "
        "known here: address, weight, backup, max_connections, maintenance",
    ),
    **{
        f"weight {weight}": (
            web(backends=f"[{{address: 10.2.0.11, weight: {weight}}}]"),
            f'{_WEIGHT}"{weight}"',
        )
        for weight in ("-1", "65536", "true", "1.5", "1e3", "0x1", "1_0", "+1", "\N{ARABIC-INDIC DIGIT ONE}")
    },
    "no connections": (
        web(backends="[{address: 10.2.0.11, max_connections: 0}]"),
        "5:56: l4.services[0].backends[0].max_connections: "
        'must be a whole number from 1 to 10000000, not "0"',
    ),
    "no connections for all": (
        web(more="      max_connections: many\n"),
        '6:24: l4.services[0].max_connections: must be a whole number from 1 to 10000000, not "many"',
    ),
    "twice": (
        web(backends="[10.2.0.11:80, {address: 10.2.0.11:80, weight: 2}]"),
        "5:42: l4.services[0].backends[1].address: "
        "10.2.0.11:80 is the same server as l4.services[0].backends[0]; "
        "remove one of the two",
    ),
    "twice, once by the port it keeps": (
        web(backends="[10.2.0.11:80, 10.2.0.11]"),
        "5:32: l4.services[0].backends[1]: 10.2.0.11 is the same server as l4.services[0].backends[0]; "
        "remove one of the two",
    ),
    "twice, once by the port it keeps, first": (
        web(backends="[10.2.0.11, 10.2.0.11:80]"),
        "5:29: l4.services[0].backends[1]: 10.2.0.11:80 is the same server as l4.services[0].backends[0]; "
        "remove one of the two",
    ),
    "other family": (
        web(backends="['[2001:db8::11]:80']"),
        _BACKEND + "is IPv6, but the service listens on 203.0.113.10:80/tcp; use an IPv4 address",
    ),
    "range to one port": (
        web("203.0.113.10:8000-8100/tcp"),
        _BACKEND + "a range of 101 ports (203.0.113.10:8000-8100/tcp) cannot go to one port; "
        "leave the port out, so that packets keep theirs",
    ),
    "any port to one port": (
        web("[203.0.113.10:80/tcp, 203.0.113.10:any/udp]"),
        _BACKEND + "a range of 65535 ports (203.0.113.10:any/udp) cannot go to one port; "
        "leave the port out, so that packets keep theirs",
    ),
    "itself": (
        web(backends="[203.0.113.10:8080]"),
        _BACKEND + '203.0.113.10 is an address that service "web" listens on, packets would go in a circle; '
        "name the servers themselves",
    ),
}

_LISTEN_2 = "7:15: l4.services[1].listen: "

BETWEEN = {
    "duplicate name": (
        web(more=second(name="web")),
        '6:13: l4.services[1].name: "web" is the name of l4.services[0] too; change one of the two',
    ),
    "same listen": (
        web(more=second("203.0.113.10:80/tcp")),
        _LISTEN_2 + '203.0.113.10:80/tcp overlaps with 203.0.113.10:80/tcp of service "web"; '
        "change or remove one of the two",
    ),
    "overlapping ranges": (
        web("203.0.113.10:80-90/tcp", "[10.2.0.11]", second("203.0.113.10:85-95/tcp", "[10.2.0.11]")),
        _LISTEN_2 + '203.0.113.10:85-95/tcp overlaps with 203.0.113.10:80-90/tcp of service "web"; '
        "change or remove one of the two",
    ),
    "range around a port": (
        web("203.0.113.10:80/tcp", "[10.2.0.11]", second("203.0.113.10:any/tcp+udp", "[10.2.0.12]")),
        _LISTEN_2 + '203.0.113.10:any/tcp overlaps with 203.0.113.10:80/tcp of service "web"; '
        "change or remove one of the two",
    ),
    "within a service": (
        web("[203.0.113.10:80/tcp, 203.0.113.10:80/tcp+udp]"),
        "4:37: l4.services[0].listen[1]: "
        "203.0.113.10:80/tcp overlaps with 203.0.113.10:80/tcp of this service; "
        "change or remove one of the two",
    ),
    "a circle over two": (
        web(backends="[203.0.113.20]", more=second()),
        _BACKEND + '203.0.113.20 is an address that service "api" listens on, packets would go in a circle; '
        "name the servers themselves",
    ),
    "17 listens for one endpoint": (
        web(
            "[" + ", ".join(f"203.0.113.10:{port}/tcp" for port in range(1, 18)) + "]",
            "[10.2.0.9, 10.2.0.11:8080]",
        ),
        "5:28: l4.services[0].backends[1]: 10.2.0.11:8080/tcp would answer for more than 16 listens; "
        "give the server further addresses or ports",
    ),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    rows(
        yaml=YAML,
        section=SECTION,
        service=SERVICE,
        backends=BACKENDS,
        between=BETWEEN,
        one_packet=ONE_PACKET,
        overflow=OVERFLOW,
    ),
)
def test_the_error_is_one_line_with_its_position(text: str, expected: str) -> None:
    assert error_of(lambda: parse_config(text, "lb.yaml")) == f"lb.yaml:{expected}"
