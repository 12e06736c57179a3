"""What can be wrong with health checks and what acts on them, each with the line that an operator reads."""

from __future__ import annotations

import pytest

from l4lb.control.config import parse_config
from tests.support.configs import error_of, rows, web


def key(text: str, listen: str = "203.0.113.10:80/tcp") -> str:
    """A service with one more key at 6:7."""
    return web(listen, more=f"      {text}\n")


def health(keys: str) -> str:
    """A service whose check has the keys, the first of which begins at 6:16 with its value behind it."""
    return key(f"health: {{{keys}}}")


_HEALTH = "l4.services[0].health"
_TYPES = "tcp, http, https, udp, dns, ping, tls, syn, exec"
_KEYS = (
    "type, interval, timeout, rise, fall, port, path, method, host, headers, verify, payload, payload_hex, "
    "query, command, expect, via"
)

TYPES = {
    "no type": (health("rise: 1"), f"6:15: {_HEALTH}.type: missing; add this key, it is required"),
    "a word": (key("health: tcp"), f'6:15: {_HEALTH}: must be a mapping with the keys {_KEYS}, not "tcp"'),
    "unknown type": (
        health("type: smtp"),
        f'6:22: {_HEALTH}.type: unknown value "smtp"; known here: {_TYPES}',
    ),
    "nearly right": (health("type: htp"), f'6:22: {_HEALTH}.type: unknown value "htp"; did you mean "http"?'),
    "way of ping": (
        health("type: ping, via: vip"),
        f"6:33: {_HEALTH}.via: belongs to checks of type tcp, http, https, udp, dns, tls, syn, "
        "and this is ping; remove it",
    ),
    "silence through the VIP": (
        health("type: udp, via: vip"),
        f"6:32: {_HEALTH}.via: through the VIP nobody hears that a UDP port is closed; expect an answer, or "
        "use backend",
    ),
    "the VIP of nat": (
        health("type: tcp, via: vip"),
        f"6:15: {_HEALTH}: via: vip is for dsr, ipip and gue, with nat checks ask the backend's own address; "
        "remove it",
    ),
    "unknown key": (
        health("type: tcp, intervall: 5s"),
        f'6:27: {_HEALTH}.intervall: unknown key; did you mean "interval"?',
    ),
    "port of ping": (
        health("type: ping, port: 80"),
        f"6:34: {_HEALTH}.port: belongs to checks of type tcp, http, https, udp, dns, tls, syn, exec, "
        "and this is ping; remove it",
    ),
    "path of tcp": (
        health("type: tcp, path: /"),
        f"6:33: {_HEALTH}.path: belongs to checks of type http, https, and this is tcp; remove it",
    ),
    "verify of http": (
        health("type: http, verify: true"),
        f"6:36: {_HEALTH}.verify: belongs to checks of type https, tls, and this is http; remove it",
    ),
    "query of udp": (
        health("type: udp, query: a"),
        f"6:34: {_HEALTH}.query: belongs to checks of type dns, and this is udp; remove it",
    ),
    "status of udp": (
        health("type: udp, expect: {status: 200}"),
        f"6:44: {_HEALTH}.expect.status: belongs to checks of type http, https, and this is udp; remove it",
    ),
    "expect of dns": (
        health("type: dns, expect: {}"),
        f"6:35: {_HEALTH}.expect: belongs to checks of type http, https, udp, and this is dns; remove it",
    ),
}

VALUES = {
    "no unit": (
        health("type: tcp, interval: 5"),
        f'6:37: {_HEALTH}.interval: "5" is not a duration; write a whole number and ms, s, m or h, '
        "as in 250ms",
    ),
    "interval": (
        health("type: tcp, interval: 99ms"),
        f"6:37: {_HEALTH}.interval: must be a duration from 100ms to 1h, not 99ms",
    ),
    "timeout": (
        health("type: tcp, timeout: 301s"),
        f"6:36: {_HEALTH}.timeout: must be a duration from 10ms to 5m, not 301s",
    ),
    "rise": (
        health("type: tcp, rise: 0"),
        f'6:33: {_HEALTH}.rise: must be a whole number from 1 to 100, not "0"',
    ),
    "port": (
        health("type: tcp, port: 65536"),
        f'6:33: {_HEALTH}.port: must be a whole number from 1 to 65535, not "65536"',
    ),
    "path": (
        health("type: http, path: health"),
        f'6:34: {_HEALTH}.path: "health" is not a path; begin with /, and use at most 2000 characters of '
        "ASCII without spaces",
    ),
    "method": (
        health("type: http, method: get"),
        f'6:36: {_HEALTH}.method: "get" is not a method; write it in capitals, as in GET or HEAD',
    ),
    "host": (
        health("type: http, host: 'a:80'"),
        f'6:34: {_HEALTH}.host: "a:80" is not a host name; write it without a port, as in www.example.com',
    ),
    "verify": (
        health("type: tls, verify: yes"),
        f'6:35: {_HEALTH}.verify: must be true or false, not "yes"',
    ),
    "quoted verify": (
        health("type: tls, verify: 'true'"),
        f"6:35: {_HEALTH}.verify: must be true or false, not text; remove the quotes",
    ),
    "headers": (
        health("type: http, headers: [a]"),
        f"6:37: {_HEALTH}.headers: must be a mapping of header names and values, not a list",
    ),
    "header name": (
        health("type: http, headers: {a b: c}"),
        f'6:43: {_HEALTH}.headers."a b": "a b" is not the name of a header; use letters, digits and -',
    ),
    "header value": (
        health('type: http, headers: {a: "b\\r\\nc"}'),
        f'6:41: {_HEALTH}.headers.a: "b\\r\\nc" is not the value of a header; '
        "use at most 1000 characters of ASCII on one line",
    ),
    "header twice": (
        health("type: http, headers: {Accept: b, accept: c}"),
        f"6:57: {_HEALTH}.headers.accept: is the same header as Accept; remove one of the two",
    ),
    "header twice alike": (
        health("type: http, headers: {a: b, a: c}"),
        f"6:44: {_HEALTH}.headers.a: the key stands here twice; remove one of the two",
    ),
    "header host": (
        health("type: http, headers: {Host: b}"),
        f'6:44: {_HEALTH}.headers.Host: has a key of its own; write it as "host" beside "headers"',
    ),
    "header of the check": (
        health("type: http, headers: {Content-Length: 1}"),
        f"6:54: {_HEALTH}.headers.Content-Length: is set by the check itself; remove it",
    ),
    "interim status": (
        health("type: http, expect: {status: 100-399}"),
        f'6:45: {_HEALTH}.expect.status: "100-399" is not a status; write 200 to 599, '
        "or a range as in 200-299",
    ),
    "two payloads": (
        health("type: udp, payload: a, payload_hex: 00"),
        f"6:52: {_HEALTH}.payload_hex: payload is given, too; remove one of the two",
    ),
    "half a byte": (
        health("type: udp, payload_hex: 000"),
        f'6:40: {_HEALTH}.payload_hex: "000" is not bytes; write two digits of 0-9 and a-f for each',
    ),
    "long payload": (
        health("type: udp, payload: " + "é" * 601),
        f"6:36: {_HEALTH}.payload: has 1202 bytes; use at most 1200, which every path carries",
    ),
    "query": (
        health("type: dns, query: a..b"),
        f'6:34: {_HEALTH}.query: "a..b" is not a name of DNS; write it as in www.example.com, '
        'or "." for the root',
    ),
    "no command": (
        health("type: exec"),
        f"6:15: {_HEALTH}: a check of type exec needs a command; add one, "
        "as in command: [/usr/local/bin/check]",
    ),
    "relative command": (
        health("type: exec, command: [check, /x]"),
        f'6:38: {_HEALTH}.command[0]: "check" is not an absolute path; begin with / and use no shell',
    ),
    "empty command": (
        health("type: exec, command: []"),
        f"6:37: {_HEALTH}.command: the list is empty; add the path of a program",
    ),
    "zero in a word": (
        health('type: exec, command: [/x, "a\\0"]'),
        f'6:42: {_HEALTH}.command[1]: "a\\x00" has a zero character in it, which no program can be given; '
        "remove it",
    ),
    "status": (
        health("type: http, expect: {status: OK}"),
        f'6:45: {_HEALTH}.expect.status: "OK" is not a status; write 200 to 599, or a range as in 200-299',
    ),
    "status backwards": (
        health("type: http, expect: {status: [200, 399-300]}"),
        f'6:51: {_HEALTH}.expect.status[1]: the range 399-300 runs backwards; write "300-399"',
    ),
    "empty body": (
        health("type: http, expect: {body: ''}"),
        f"6:43: {_HEALTH}.expect.body: is empty, and everything contains that; "
        "write what must be there, or remove the key",
    ),
    "body of HEAD": (
        health("type: http, method: HEAD, expect: {body: OK}"),
        f"6:57: {_HEALTH}.expect.body: answers to HEAD have no body; remove it, or use GET",
    ),
    "pattern": (
        health("type: http, expect: {match: 'ab(c'}"),
        f'6:44: {_HEALTH}.expect.match: "ab(c" is not a regular expression: '
        "missing ), unterminated subpattern at character 3; correct it",
    ),
    "pattern with a warning": (
        health("type: http, expect: {match: '[[a]'}"),
        f'6:44: {_HEALTH}.expect.match: "[[a]" is not a regular expression: '
        "Possible nested set at position 1; make it simpler",
    ),
    "pattern with a large number": (
        health("type: http, expect: {match: 'a{" + "9" * 30 + "}'}"),
        f'6:44: {_HEALTH}.expect.match: "a{{{"9" * 30}}}" is not a regular expression: '
        "the repetition number is too large; make it simpler",
    ),
}

SERVICE = {
    "passive": (
        key("passive: 3"),
        "6:16: l4.services[0].passive: must be true, false or a mapping with the keys failures, inhibit, "
        'longest, not "3"',
    ),
    "longest": (
        key("passive: {inhibit: 10s, longest: 9s}"),
        "6:40: l4.services[0].passive.longest: is shorter than inhibit, which is 10s; make it that or more",
    ),
    "on_down": (
        key("on_down: drop"),
        '6:16: l4.services[0].on_down: unknown value "drop"; known here: keep, reset, move',
    ),
    "reset of UDP": (
        key("on_down: reset", "203.0.113.10:80/udp"),
        "6:16: l4.services[0].on_down: reset is for TCP, and the service listens on UDP only; use move",
    ),
    "slow start without a check": (
        key("slow_start: 10s"),
        "6:19: l4.services[0].slow_start: without a check no backend goes down or comes up; "
        "add health or passive, or remove it",
    ),
    "panic without a check": (
        key("panic_threshold: 50%"),
        "6:24: l4.services[0].panic_threshold: without a check no backend goes down or comes up; "
        "add health or passive, or remove it",
    ),
    "panic": (
        key("panic_threshold: 50"),
        '6:24: l4.services[0].panic_threshold: "50" is not a part of a whole; '
        "write 0% to 100%, or 0 to 1 as in 0.5",
    ),
    "drain": (
        key("drain_timeout: 25h"),
        "6:22: l4.services[0].drain_timeout: must be a duration from 0s to 24h, not 25h",
    ),
    "affinity": (
        key("affinity: cookie"),
        '6:17: l4.services[0].affinity: unknown value "cookie"; known here: client-ip',
    ),
    "mask": (
        key("affinity: {mask: 33}"),
        '6:24: l4.services[0].affinity.mask: must be a whole number from 1 to 32, not "33"',
    ),
    "all backups": (
        web(backends="[{address: 10.2.0.11:8080, backup: true}]"),
        "5:17: l4.services[0].backends: all of them are backups, with nothing to be a backup for; "
        "make at least one an ordinary one",
    ),
    "backup": (
        web(backends="[{address: 10.2.0.11:8080, backup: 0}]"),
        '5:52: l4.services[0].backends[0].backup: must be true, false or a priority from 1 to 100, not "0"',
    ),
}

METRICS = {
    "no port": (
        web(more="  metrics: 127.0.0.1\n"),
        '6:12: l4.metrics: "127.0.0.1" has no port; add one, as in "127.0.0.1:9100"',
    ),
    "name": (
        web(more="  metrics: localhost:9100\n"),
        '6:12: l4.metrics: "localhost" is not an IP address; names are not looked up',
    ),
    "multicast": (
        web(more="  metrics: 224.0.0.1:9100\n"),
        "6:12: l4.metrics: 224.0.0.1 is an address that no program listens on; use one of this host",
    ),
    "taken": (
        web(more="  metrics: 203.0.113.10:80\n"),
        '6:12: l4.metrics: service "web" listens on 203.0.113.10:80/tcp and would get what comes here; '
        "use another port",
    ),
}


@pytest.mark.parametrize(
    ("text", "expected"), rows(types=TYPES, values=VALUES, service=SERVICE, metrics=METRICS)
)
def test_the_error_is_one_line_with_its_position(text: str, expected: str) -> None:
    assert error_of(lambda: parse_config(text, "lb.yaml")) == f"lb.yaml:{expected}"
