"""The configuration: what it says, and for everything wrong the exact line that an operator reads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from l4lb.control.config import parse_config
from l4lb.control.units import parse_duration, parse_size
from l4lb.errors import ConfigError
from l4lb.model import (
    Backend,
    Datapath,
    FlowSettings,
    Forward,
    L4Config,
    Listen,
    Protocol,
    QueueSettings,
    Scheduler,
    Service,
)
from l4lb.net.files import MAX_CONFIG_BYTES, read_config

VIP = ip_address("203.0.113.10")


def l4(rest: str) -> str:
    """A file whose `l4` has the flow-style keys `rest` from column 6 on, and an empty list of services."""
    return f"l4: {{{rest}}}\n" if "services:" in rest else f"l4: {{{rest}, services: []}}\n"


def web(listen: str = "203.0.113.10:80/tcp", backends: str = "[10.2.0.11:8080]", more: str = "") -> str:
    """A service; `listen` begins at 4:15, `backends` at 5:17, the lines of `more` at line 6."""
    return f"l4:\n  services:\n    - name: web\n      listen: {listen}\n      backends: {backends}\n{more}"


def second(listen: str = "203.0.113.20:80/tcp", backends: str = "[10.2.0.11:8080]", name: str = "api") -> str:
    """A second service for `web(more=…)`; its name stands at 6:13, `listen` at 7:15, `backends` at 8:17."""
    return f"    - name: {name}\n      listen: {listen}\n      backends: {backends}\n"


def error_of(action: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        action()
    assert caught.value.exit_code == 2
    return str(caught.value)


# What it says -------------------------------------------------------------------------------------------


def test_every_key_is_read() -> None:
    config = parse_config(
        """
l4:
  datapath: mark
  workers: 4
  queue: {first: 8, length: 4096}
  flow_table: {capacity: 4096}
  hash_key: 00112233445566778899AABBccddeeff
  vip_interface: eth0
  services:
    - name: web
      listen: [203.0.113.10:80/tcp, 203.0.113.10:443/tcp]
      forward: nat
      scheduler: least-connections
      backends:
        - 10.2.0.11:8080
        - {address: "10.2.0.12:8080", weight: 0}
""",
        "lb.yaml",
    )
    assert config == L4Config(
        datapath=Datapath.MARK,
        workers=4,
        queue=QueueSettings(8, 4096),
        flows=FlowSettings(4096),
        hash_key=bytes.fromhex("00112233445566778899aabbccddeeff"),
        vip_interface="eth0",
        services=(
            Service(
                name="web",
                listens=(Listen(VIP, Protocol.TCP, 80, 80), Listen(VIP, Protocol.TCP, 443, 443)),
                forward=Forward.NAT,
                scheduler=Scheduler.LEAST_CONNECTIONS,
                backends=(
                    Backend(ip_address("10.2.0.11"), 8080, 1),
                    Backend(ip_address("10.2.0.12"), 8080, 0),
                ),
            ),
        ),
    )


def test_everything_but_services_has_the_default_of_the_model() -> None:
    config = parse_config(web(), "lb.yaml")
    assert config == L4Config(services=config.services)
    (service,) = config.services
    assert service == Service("web", service.listens, service.backends)


@pytest.mark.parametrize(
    ("listen", "backend", "listens"),
    [
        ("203.0.113.10:80/udp", "10.2.0.11:8080", ["203.0.113.10:80/udp"]),
        ("203.0.113.10:53/tcp+udp", "10.2.0.11", ["203.0.113.10:53/tcp", "203.0.113.10:53/udp"]),
        ("203.0.113.10:8000-8100/tcp", "10.2.0.11", ["203.0.113.10:8000-8100/tcp"]),
        ("203.0.113.10:80-80/tcp", "10.2.0.11:8080", ["203.0.113.10:80/tcp"]),
        ("203.0.113.10:any/udp", "10.2.0.11", ["203.0.113.10:any/udp"]),
        ("203.0.113.10:1-65535/udp", "10.2.0.11", ["203.0.113.10:any/udp"]),
        ('"[2001:DB8:0::10]:80/tcp"', '"[2001:db8::11]:8080"', ["[2001:db8::10]:80/tcp"]),
        ('"[2001:db8::10]:80/tcp"', '"[2001:db8::11]"', ["[2001:db8::10]:80/tcp"]),
        ("[203.0.113.10:80/tcp, 203.0.113.11:80/tcp]", "10.2.0.11", ["203.0.113.10:80/tcp", "203.0.113.11:80/tcp"]),
        ("[203.0.113.10:1-9/tcp, 203.0.113.10:10-19/tcp]", "10.2.0.1", ["203.0.113.10:1-9/tcp", "203.0.113.10:10-19/tcp"]),
    ],
)
def test_listens(listen: str, backend: str, listens: list[str]) -> None:
    (service,) = parse_config(web(listen, f"[{backend}]"), "lb.yaml").services
    assert [str(one) for one in service.listens] == listens
    assert service.backends[0].name == backend.strip('"').removesuffix("]").removeprefix(
        "[" if backend.endswith(']"') else ""
    )


@pytest.mark.parametrize("value", ["none", "null", "~", ""])
def test_addresses_may_be_left_alone(value: str) -> None:
    assert parse_config(web(more=f"  vip_interface: {value}\n"), "lb.yaml").vip_interface is None


@pytest.mark.parametrize("scheduler", list(Scheduler))
def test_schedulers(scheduler: Scheduler) -> None:
    config = parse_config(web(more=f"      scheduler: {scheduler}\n"), "lb.yaml")
    assert config.services[0].scheduler is scheduler


@pytest.mark.parametrize("name", ["on", "80", "1.5", "0x10", '"null"', "a" * 64, "2026-01-01", "a_b.c-d"])
def test_a_scalar_is_what_its_key_makes_of_it(name: str) -> None:
    (service,) = parse_config(web().replace("web", name), "lb.yaml").services
    assert service.name == name.strip('"')


@pytest.mark.parametrize("text", [web(), "\ufeff" + web(), web().replace("\n", "\r\n"), "---\n" + web() + "...\n"])
def test_line_ends_byte_order_mark_and_document_marks(text: str) -> None:
    assert parse_config(text, "lb.yaml") == parse_config(web(), "lb.yaml")


def test_services_may_share_a_backend_and_all_weights_may_be_0() -> None:
    config = parse_config(web(backends="[{address: 10.2.0.11:8080, weight: 0}]", more=second()), "lb.yaml")
    assert [service.backends[0].name for service in config.services] == ["10.2.0.11:8080"] * 2


def test_the_same_port_on_another_protocol_or_address_does_not_overlap() -> None:
    parse_config(web(more=second("[203.0.113.10:80/udp, 203.0.113.11:80/tcp, 203.0.113.10:81/tcp]")), "lb.yaml")


# What is wrong ------------------------------------------------------------------------------------------

_L4_KEYS = "datapath, workers, queue, flow_table, hash_key, vip_interface, services"

YAML = {
    "empty file": ("", '1:1: l4: missing, the file is empty; begin with "l4:"'),
    "only a comment": ("# nothing\n", '1:1: l4: missing, the file is empty; begin with "l4:"'),
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
        "2:15: l4.services[1]: is not YAML: did not find expected ',' or ']' while parsing a flow sequence from 2:13; "
        "check the indentation, colons, quotes and brackets around here",
    ),
    "tab": (
        "l4:\n\tworkers: 1\n",
        "2:1: l4: is not YAML: found character that cannot start any token; indent with spaces instead of tabs",
    ),
    "bracketed address without quotes": (
        web("[2001:db8::1]:80/tcp"),
        "4:28: l4.services[0]: is not YAML: did not find expected key while parsing a block mapping from 3:7; "
        'put quotes around an address in brackets, as in "[2001:db8::1]:80"',
    ),
    "alias": (web("&a 203.0.113.10:80/tcp"), "4:15: l4.services[0].listen: anchors and aliases are not used here; write the value out"),
    "unknown alias": ("l4: *a\n", "1:5: l4: anchors and aliases are not used here; write the value out"),
    "tag": ("l4: !!map {}\n", '1:5: l4: tags are not used here; remove the "!" and what belongs to it'),
    "tag of an item": (
        web(backends="[!x 10.2.0.11]"),
        '5:18: l4.services[0].backends[0]: tags are not used here; remove the "!" and what belongs to it',
    ),
    "two documents": ("l4: {}\n---\nl4: {}\n", '2:1: file: a second document begins; remove the "---"'),
    "NUL": ("l4:\n  a\0b", "2:4: file: character U+0000 is not text; remove it and save the file as UTF-8"),
    "escape": ("l4: \x1b[1m", "1:5: file: character U+001B is not text; remove it and save the file as UTF-8"),
    "lone surrogate": ("l4: \ud800", "1:5: file: character U+D800 is not text; remove it and save the file as UTF-8"),
    "nested too deep": (
        "[" * 100_000,
        "1:33: " + "[0]" * 32 + ": nested deeper than 32 levels; check the brackets",
    ),
    "list as key": ("? [a]\n: b\n", "1:3: file: a key must be a word, not a list or mapping; check the brackets"),
}  # fmt: skip

SECTION = {
    "top is a list": ("[]", "1:1: file: must be a mapping with the keys l4, not a list"),
    "top is text": ("hello", '1:1: file: must be a mapping with the keys l4, not "hello"'),
    "no l4": ("{}", "1:1: l4: missing; add this key, it is required"),
    "other section": ("l7: {}", "1:1: l7: unknown key; known here: l4"),
    "null section": ("l4:\n", f"1:4: l4: has no value; give it a mapping with the keys {_L4_KEYS}, or remove it"),
    "section is a list": ("l4: []", f"1:5: l4: must be a mapping with the keys {_L4_KEYS}, not a list"),
    "no services": ("l4: {workers: 1}", "1:5: l4.services: missing; add this key, it is required"),
    "services twice": (l4("services: [], services: []"), "1:20: l4.services: the key stands here twice; remove one of the two"),
    "empty services": (l4("services: []"), "1:16: l4.services: the list is empty; add at least one service"),
    "services is a mapping": (l4("services: {}"), "1:16: l4.services: must be a list of services, not a mapping"),
    "unknown key": (l4("work: 1"), '1:6: l4.work: unknown key; did you mean "workers"?'),
    "later feature": (l4("logging: {}"), f"1:6: l4.logging: unknown key; known here: {_L4_KEYS}"),
    "long key": (l4("x" * 500 + ": 1"), f'1:6: l4."{"x" * 45}...": unknown key; known here: {_L4_KEYS}'),
    "key with a line break": (l4('"a\\nb": 1'), f'1:6: l4."a\\nb": unknown key; known here: {_L4_KEYS}'),
    "datapath": (l4("datapath: marc"), '1:16: l4.datapath: unknown value "marc"; did you mean "mark"?'),
    "later datapath": (l4("datapath: xdp"), '1:16: l4.datapath: unknown value "xdp"; known here: auto, mark, rewrite, reference'),
    "datapath without value": (
        l4("datapath: , workers: 1"),
        "1:16: l4.datapath: has no value; give it one of auto, mark, rewrite, reference, or remove it",
    ),
    "0 workers": (l4("workers: 0"), '1:15: l4.workers: must be auto or a whole number from 1 to 64, not "0"'),
    "65 workers": (l4("workers: 65"), '1:15: l4.workers: must be auto or a whole number from 1 to 64, not "65"'),
    "workers is a list": (l4("workers: [1]"), "1:15: l4.workers: must be auto or a whole number from 1 to 64, not a list"),
    "queue is a number": (l4("queue: 1"), '1:13: l4.queue: must be a mapping with the keys first, length, not "1"'),
    "queue beyond the last": (l4("queue: {first: 65536}"), '1:21: l4.queue.first: must be a whole number from 0 to 65535, not "65536"'),
    "workers beyond the last queue": (
        l4("workers: 4, queue: {first: 65533}"),
        "1:33: l4.queue.first: 4 workers need the queues 65533 to 65536, but the last is 65535; use 65532 or less",
    ),
    "short queue": (l4("queue: {length: 63}"), '1:22: l4.queue.length: must be a whole number from 64 to 1048576, not "63"'),
    "quoted number": (
        l4('queue: {length: "64"}'),
        "1:22: l4.queue.length: must be a whole number from 64 to 1048576, not text; remove the quotes",
    ),
    "leading zero": (l4("queue: {length: 0100}"), '1:22: l4.queue.length: must be a whole number from 64 to 1048576, not "0100"'),
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
    "interface": (l4("vip_interface: a/b"), '1:21: l4.vip_interface: "a/b" is not the name of an interface; see ip link'),
    "long interface": (
        l4("vip_interface: abcdefghijklmnop"),
        '1:21: l4.vip_interface: "abcdefghijklmnop" is not the name of an interface: it has 16 characters, '
        "and there are at most 15; see ip link",
    ),
}  # fmt: skip

_LISTEN = "4:15: l4.services[0].listen: "

SERVICE = {
    "unknown key": (
        web(more="      schedular: maglev\n"),
        '6:7: l4.services[0].schedular: unknown key; did you mean "scheduler"?',
    ),
    "service is text": (
        l4("services: [web]"),
        "1:17: l4.services[0]: must be a mapping with the keys name, listen, forward, scheduler, backends, "
        'not "web"',
    ),
    "no name": (l4("services: [{listen: x}]"), "1:17: l4.services[0].name: missing; add this key, it is required"),
    "name": (web().replace("web", "Web 1"), '3:13: l4.services[0].name: "Web 1" is not a name; use the characters a-z, 0-9, _, . and -'),
    "long name": (
        web().replace("web", "w" * 65),
        f'3:13: l4.services[0].name: "{"w" * 45}..." has 65 characters; use at most 64',
    ),
    "scheduler": (
        web(more="      scheduler: least-connection\n"),
        '6:18: l4.services[0].scheduler: unknown value "least-connection"; did you mean "least-connections"?',
    ),
    "forward": (web(more="      forward: dsr\n"), '6:16: l4.services[0].forward: unknown value "dsr"; known here: nat'),
    "no listen": (web("[]"), _LISTEN + "the list is empty; add an endpoint such as 203.0.113.10:80/tcp"),
    "listen is a mapping": (web("{}"), _LISTEN + "must be an endpoint such as 203.0.113.10:80/tcp, not a mapping"),
    "listen in a list": (
        web("[203.0.113.10:80/tcp, []]"),
        "4:37: l4.services[0].listen[1]: must be an endpoint such as 203.0.113.10:80/tcp, not a list",
    ),
    "no port": (web("203.0.113.10"), _LISTEN + '"203.0.113.10" has no port; add one, as in "203.0.113.10:80/tcp"'),
    "no protocol": (web("203.0.113.10:80"), _LISTEN + '"203.0.113.10:80" has no protocol; add one, as in "203.0.113.10:80/tcp"'),
    "protocol": (web("203.0.113.10:80/tpc"), _LISTEN + 'unknown protocol "tpc"; did you mean "tcp"?'),
    "comma": (web("203.0.113.10:80/tcp,udp"), _LISTEN + 'several protocols are joined with "+"; write "tcp+udp"'),
    "protocol twice": (web("203.0.113.10:80/tcp+tcp"), _LISTEN + "the protocol tcp stands here twice; remove one of the two"),
    "port 0": (web("203.0.113.10:0/tcp"), _LISTEN + "port 0 is out of range; use 1 to 65535"),
    "port 70000": (web("203.0.113.10:70000/tcp"), _LISTEN + "port 70000 is out of range; use 1 to 65535"),
    "port name": (web("203.0.113.10:http/tcp"), _LISTEN + '"http" is not a port; use a number from 1 to 65535'),
    "backwards": (web("203.0.113.10:9-8/tcp"), _LISTEN + 'the port range 9-8 runs backwards; write "8-9"'),
    "range to port 0": (web("203.0.113.10:80-0/tcp"), _LISTEN + "port 0 is out of range; use 1 to 65535"),
    "host name": (web("example.com:80/tcp"), _LISTEN + '"example.com" is not an IP address; names are not looked up'),
    "bad address": (
        web("203.0.113.256:80/tcp"),
        _LISTEN + '"203.0.113.256" is not an IP address; write four numbers from 0 to 255 without leading zeros',
    ),
    "line break in an address": (
        web('"203.0.113.1\\n:80/tcp"'),
        _LISTEN + '"203.0.113.1\\n" is not an IP address; names are not looked up',
    ),
    "IPv6 without brackets": (
        web("2001:db8::1:80/tcp"),
        _LISTEN + '"2001:db8::1:80" is not an endpoint; an IPv6 address needs brackets, as in "[2001:db8::1]:80"',
    ),
    "open address bracket": (
        web('"[2001:db8::1:80/tcp"'),
        _LISTEN + '"[2001:db8::1:80" is not an endpoint; the bracket is not closed, add "]"',
    ),
    "no colon": (
        web('"[2001:db8::1]80/tcp"'),
        _LISTEN + '"[2001:db8::1]80" is not an endpoint; a ":" and a port follow the bracket',
    ),
    "bad IPv6": (web('"[2001::db8::1]:80/tcp"'), _LISTEN + '"2001::db8::1" is not an IPv6 address; check the text in the brackets'),
    "unspecified": (web("0.0.0.0:80/tcp"), _LISTEN + "0.0.0.0 is the unspecified address; name the address itself"),
    "loopback": (web('"[::1]:80/tcp"'), _LISTEN + "::1 is a loopback address, which packets cannot be routed to; use another"),
    "multicast": (web("224.0.0.1:80/tcp"), _LISTEN + "224.0.0.1 is a multicast address; use a unicast address"),
    "broadcast": (web("255.255.255.255:80/tcp"), _LISTEN + "255.255.255.255 is the broadcast address; use a unicast address"),
    "mapped": (web('"[::ffff:10.0.0.1]:80/tcp"'), _LISTEN + '::ffff:a00:1 is an IPv4 address in IPv6 form; write "10.0.0.1"'),
    "zone": (
        web('"[fe80::1%eth0]:80/tcp"'),
        _LISTEN + '"fe80::1%eth0" has a zone; a link-local address cannot be balanced, use a global one',
    ),
    "link-local": (web('"[fe80::1]:80/tcp"'), _LISTEN + "fe80::1 is a link-local address, which cannot be routed; use a global one"),
    "long listen": (web("x" * 5000), _LISTEN + f'"{"x" * 45}..." is not an IP address; names are not looked up'),
    "two families": (
        web("[203.0.113.10:80/tcp, '[2001:db8::1]:80/tcp']"),
        "4:37: l4.services[0].listen[1]: is IPv6, but the service listens on 203.0.113.10:80/tcp; "
        "use one service a family",
    ),
}  # fmt: skip

_BACKEND = "5:18: l4.services[0].backends[0]: "
_WEIGHT = "5:47: l4.services[0].backends[0].weight: must be a whole number from 0 to 65535, not "

BACKENDS = {
    "no backends": (web(backends="[]"), "5:17: l4.services[0].backends: the list is empty; add at least one backend"),
    "no list": (web(backends="10.2.0.11"), '5:17: l4.services[0].backends: must be a list of backends, not "10.2.0.11"'),
    "null": (web(backends="[~]"), _BACKEND + "has no value; give it an endpoint such as 10.2.0.11:8080, or remove it"),
    "bad address": (web(backends="[10.2.0]"), _BACKEND + '"10.2.0" is not an IP address; write four numbers from 0 to 255 without leading zeros'),
    "port 0": (web(backends="[10.2.0.11:0]"), _BACKEND + "port 0 is out of range; use 1 to 65535"),
    "huge port": (web(backends="[10.2.0.11:" + "9" * 99 + "]"), _BACKEND + f'"{"9" * 45}..." is not a port; use a number from 1 to 65535'),
    "brackets without quotes": (
        web(backends="[[2001:db8::11]]"),
        _BACKEND + "must be an endpoint such as 10.2.0.11:8080, not a list; put quotes around an address in brackets",
    ),
    "port or address": (
        web(backends="['2001:db8::11:8080']"),
        _BACKEND + '"2001:db8::11:8080" is not an endpoint; an IPv6 address needs brackets, as in "[2001:db8::11]:8080"',
    ),
    "no address": (web(backends="[{weight: 1}]"), "5:18: l4.services[0].backends[0].address: missing; add this key, it is required"),
    "unknown key": (
        web(backends="[{address: 10.2.0.11, wieght: 1}]"),
        '5:39: l4.services[0].backends[0].wieght: unknown key; did you mean "weight"?',
    ),
    "later key": (
        web(backends="[{address: 10.2.0.11, backup: true}]"),
        "5:39: l4.services[0].backends[0].backup: unknown key; known here: address, weight",
    ),
    **{
        f"weight {weight}": (web(backends=f"[{{address: 10.2.0.11, weight: {weight}}}]"), f'{_WEIGHT}"{weight}"')
        for weight in ("-1", "65536", "true", "1.5", "1e3", "0x1", "1_0", "+1", "\N{ARABIC-INDIC DIGIT ONE}")
    },
    "twice": (
        web(backends="[10.2.0.11:80, {address: 10.2.0.11:80, weight: 2}]"),
        "5:42: l4.services[0].backends[1].address: 10.2.0.11:80 is the same server as l4.services[0].backends[0]; "
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
}  # fmt: skip

_LISTEN_2 = "7:15: l4.services[1].listen: "

BETWEEN = {
    "duplicate name": (web(more=second(name="web")), '6:13: l4.services[1].name: "web" is the name of l4.services[0] too; change one of the two'),
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
        "4:37: l4.services[0].listen[1]: 203.0.113.10:80/tcp overlaps with 203.0.113.10:80/tcp of this service; "
        "change or remove one of the two",
    ),
    "a circle over two": (
        web(backends="[203.0.113.20]", more=second()),
        _BACKEND + '203.0.113.20 is an address that service "api" listens on, packets would go in a circle; '
        "name the servers themselves",
    ),
    "17 listens for one endpoint": (
        web("[" + ", ".join(f"203.0.113.10:{port}/tcp" for port in range(1, 18)) + "]", "[10.2.0.9, 10.2.0.11:8080]"),
        "5:28: l4.services[0].backends[1]: 10.2.0.11:8080/tcp would answer for more than 16 listens; "
        "give the server further addresses or ports",
    ),
}  # fmt: skip


def rows(**groups: dict[str, tuple[str, str]]) -> list[object]:
    return [
        pytest.param(text, expected, id=f"{group}: {name}")
        for group, table in groups.items()
        for name, (text, expected) in table.items()
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    rows(yaml=YAML, section=SECTION, service=SERVICE, backends=BACKENDS, between=BETWEEN),
)
def test_the_error_is_one_line_with_its_position(text: str, expected: str) -> None:
    assert error_of(lambda: parse_config(text, "lb.yaml")) == f"lb.yaml:{expected}"


def test_16_listens_for_one_endpoint_are_allowed() -> None:
    listens = ", ".join(f"203.0.113.10:{port}/tcp" for port in range(1, 17))
    parse_config(web(f"[{listens}]"), "lb.yaml")


def test_the_17th_service_that_shares_an_endpoint_is_named() -> None:
    services = "".join(second(f"203.0.113.{i}:80/tcp", name=f"s{i}") for i in range(17))
    assert error_of(lambda: parse_config("l4:\n  services:\n" + services, "lb.yaml")).startswith(
        "lb.yaml:53:18: l4.services[16].backends[0]: 10.2.0.11:8080/tcp would answer for more than 16 listens;"
    )


def backend_list(count: int, first: int = 0) -> str:
    return "[" + ", ".join(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}" for i in range(first, first + count)) + "]"


def test_a_service_has_at_most_10000_backends() -> None:
    assert len(parse_config(web(backends=backend_list(10_000)), "lb.yaml").services[0].backends) == 10_000
    assert error_of(lambda: parse_config(web(backends=backend_list(10_001)), "lb.yaml")).endswith(
        ": l4.services[0].backends[10000]: a service has at most 10000 backends, this one has 10001; split the service"
    )


def test_all_services_have_at_most_65535_backends() -> None:
    services = "".join(
        second(f"203.0.113.{i}:80/tcp", backend_list(10_000, i * 10_000), f"s{i}") for i in range(6)
    )
    last = second("203.0.113.6:80/tcp", backend_list(5_536, 60_000), "s6")
    assert error_of(lambda: parse_config("l4:\n  services:\n" + services + last, "lb.yaml")) == (
        "lb.yaml:21:7: l4.services[6]: with this service there are 65536 backends, and there is room for 65535; "
        "divide the services between several balancers"
    )


def test_listens_times_backends_are_bounded() -> None:
    listens = ", ".join(f"203.0.113.10:{port}/tcp" for port in range(1, 1050, 1))
    assert (
        "there are 1049000 pairs of a listen and a backend, and there is room for 1048576;"
        in error_of(lambda: parse_config(web(f"[{listens}]", backend_list(1000)), "lb.yaml"))
    )


def test_a_key_is_never_repeated_in_a_message() -> None:
    secret = "00112233445566778899aabbccddeef"
    for wrong in (secret, secret + "g", secret + "00"):
        assert secret not in error_of(lambda text=l4(f"hash_key: {wrong}"): parse_config(text, "lb.yaml"))  # type: ignore[misc]


def test_the_name_of_the_file_stays_on_the_line() -> None:
    assert error_of(lambda: parse_config("", "a\nb.yaml")).startswith("a\\nb.yaml:1:1: ")


def test_a_large_configuration_is_read_quickly() -> None:
    services = "".join(
        second(
            f"203.0.{i >> 8}.{i & 255}:80/tcp",
            "[" + ", ".join(f"10.{i >> 8}.{i & 255}.{n}:8080" for n in range(1, 21)) + "]",
            f"s{i}",
        )
        for i in range(1000)
    )
    began = time.process_time()
    config = parse_config("l4:\n  services:\n" + services, "lb.yaml")
    assert time.process_time() - began < 2, "0.25 s when written; this bound only finds what is not linear"
    assert sum(len(service.backends) for service in config.services) == 20_000


# The file -----------------------------------------------------------------------------------------------


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    path.write_bytes(web().encode())
    assert read_config(path) == web() == read_config(str(path))


def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    path.write_bytes(b"#" * MAX_CONFIG_BYTES)
    assert len(read_config(path)) == MAX_CONFIG_BYTES
    path.write_bytes(b"#" * (MAX_CONFIG_BYTES + 1))
    assert error_of(lambda: read_config(path)) == f"{path}: is larger than 4 MiB; is this the right file?"


def test_a_file_of_10_megabytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lb.yaml"
    path.touch()
    os.truncate(path, 10_000_000)
    assert error_of(lambda: read_config(path)) == f"{path}: is larger than 4 MiB; is this the right file?"


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    assert error_of(lambda: read_config(path)) == (
        f"{path}: cannot be read: No such file or directory; check the path and its permissions"
    )


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("l4lb.net.files.os.open", refuse)  # root may read everything
    assert error_of(lambda: read_config("/etc/l4lb.yaml")) == (
        "/etc/l4lb.yaml: cannot be read: Permission denied; check the path and its permissions"
    )


def test_a_link_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    path.symlink_to(path)
    assert "cannot be read: Too many levels of symbolic links;" in error_of(lambda: read_config(path))


def test_a_name_with_a_zero_byte() -> None:
    assert error_of(lambda: read_config("a\0b")) == (
        "a\\x00b: cannot be read: embedded null byte; check the path and its permissions"
    )


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    hint = "name the configuration file itself"
    assert error_of(lambda: read_config(tmp_path)) == f"{tmp_path}: is a directory; {hint}"
    assert error_of(lambda: read_config(pipe)) == f"{pipe}: is not a regular file; {hint}"
    assert error_of(lambda: read_config("/dev/zero")) == f"/dev/zero: is not a regular file; {hint}"


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    path.write_bytes("l4:\n  # für\n".encode("latin-1"))
    assert error_of(lambda: read_config(path)) == f"{path}:2:6: file: byte 0xFC is not UTF-8; save the file as UTF-8"


# Durations and sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "seconds"), [("250ms", 0.25), ("5s", 5), ("2m", 120), ("1h", 3600), ("0s", 0)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("512B", 512), ("64KiB", 65536), ("4MiB", 4 << 20), ("1GiB", 1 << 30)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "5", "s", "-5s", "1.5s", "5 s", "5d", "5s\n", "9" * 10 + "s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write a whole number and ms, s, m or h"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "5", "KiB", "-1B", "1KB", "1 KiB", "1kib"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size; write a whole number and B, KiB, MiB or GiB"):
        parse_size(text)
