"""Everything that can be wrong in the `l7` section, each with the exact line that an operator reads."""

from __future__ import annotations

import pytest

from l7.config.parse import parse_config
from tests.support.configs import error_of, rows

_LISTEN = "l7:\n  listeners: [{listen: 127.0.0.1:80}]\n"


def l7(rest: str) -> str:
    """A section with a listener; `rest` begins at line 3, indented by 2."""
    return f"{_LISTEN}  {rest}\n"


def listener(keys: str) -> str:
    """A listener with more keys, which begin at 2:38."""
    return f"l7:\n  listeners: [{{listen: 127.0.0.1:80, {keys}}}]\n  pools: {{web: {{backends: [a:1]}}}}\n"


def route(keys: str) -> str:
    """A route to a pool, with more keys at 3:13."""
    return l7(f"routes: [{{{keys}, pool: web}}]\n  pools: {{web: {{backends: [10.0.0.1:80]}}}}")


def match(keys: str) -> str:
    """The match of a route; its keys begin at 3:21."""
    return route(f"match: {{{keys}}}")


def pool(keys: str) -> str:
    """A pool with a backend and more keys, which begin at 3:45."""
    return l7(f"pools: {{web: {{backends: [10.0.0.1:8080], {keys}}}}}")


def backends(items: str) -> str:
    """The backends of a pool, from 3:28 on."""
    return l7(f"pools: {{web: {{backends: [{items}]}}}}")


SECTION = {
    "empty file": ("", '1:1: l7: missing, the file is empty; begin with "l7:"'),
    "only the other tier's": ("l4: {}", "1:1: l7: missing; add this key, it is required"),
    "unknown key": (l7("route: []"), '3:3: l7.route: unknown key; did you mean "routes"?'),
    "no listeners": ("l7: {}", "1:5: l7.listeners: missing; add this key, it is required"),
    "empty listeners": (
        "l7: {listeners: []}",
        "1:17: l7.listeners: the list is empty; add at least one listener",
    ),
    "secret": (
        l7("secret: abc"),
        "3:11: l7.secret: must be 32 to 128 hexadecimal digits, an even number of them; "
        'make one with "openssl rand -hex 32"',
    ),
    "error page of a status that is none": (
        l7("error_pages: {200: /x}"),
        '3:22: l7.error_pages.200: "200" is not the status of an error; use 400 to 599',
    ),
    "relative file": (
        l7("access_log: log.txt"),
        '3:15: l7.access_log: "log.txt" is not an absolute path; begin with /',
    ),
    "limit": (
        l7("limits: {header_bytes: 1GiB}"),
        "3:26: l7.limits.header_bytes: must be a size from 1KiB to 1MiB, not 1GiB",
    ),
    "size": (
        l7("limits: {header_bytes: 32kb}"),
        '3:26: l7.limits.header_bytes: "32kb" is not a size; write a whole number and B, KiB, MiB or GiB, '
        "as in 64KiB",
    ),
    "metrics on a listener": (
        l7("metrics: 127.0.0.1:80"),
        '3:12: l7.metrics: is an endpoint of listener "127.0.0.1:80"; use another port',
    ),
    "user": (
        l7("user: No Body"),
        '3:9: l7.user: "No Body" is not the name of a user or group; see getent passwd',
    ),
}
LISTENERS = {
    "no port": (
        "l7: {listeners: [{listen: 127.0.0.1}]}",
        '1:27: l7.listeners[0].listen: "127.0.0.1" has no port; add one, as in "127.0.0.1:9100"',
    ),
    "an endpoint twice": (
        "l7:\n  listeners:\n    - {name: a, listen: 127.0.0.1:80}\n    - {name: b, listen: 127.0.0.1:80}\n",
        '4:25: l7.listeners[1].listen: 127.0.0.1:80 is an endpoint of listener "a" too; '
        "remove one of the two",
    ),
    "a name twice": (
        "l7:\n  listeners:\n    - {name: a, listen: 127.0.0.1:80}\n    - {name: a, listen: 127.0.0.1:81}\n",
        '4:14: l7.listeners[1].name: "a" is the name of l7.listeners[0] too; change one of the two',
    ),
    "key": (
        listener("tls: {certificate: /a.pem}"),
        '2:44: l7.listeners[0].tls.certificate: unknown key; did you mean "certificates"?',
    ),
    "no certificates": (
        listener("tls: {certificates: []}"),
        "2:58: l7.listeners[0].tls.certificates: the list is empty; add {cert: FILE, key: FILE}",
    ),
    "client certificates without authority": (
        listener("tls: {certificates: /a.pem, client_certificates: optional}"),
        "2:87: l7.listeners[0].tls.client_certificates: needs the authority that signs them; add client_ca",
    ),
    "ciphers of TLS 1.3": (
        listener("tls: {certificates: /a.pem, min_version: 1.3, ciphers: HIGH}"),
        "2:93: l7.listeners[0].tls.ciphers: is for TLS 1.2, and min_version is 1.3; remove one of the two",
    ),
    "version": (
        listener("tls: {certificates: /a.pem, min_version: 1.1}"),
        '2:79: l7.listeners[0].tls.min_version: unknown value "1.1"; did you mean "1.3"?',
    ),
    "pass-through and tls": (
        listener("tls: {certificates: /a.pem}, pass_through: {pool: web}"),
        "2:81: l7.listeners[0].pass_through: a listener passes TLS through or ends it, and this one has tls; "
        "use another endpoint for one of the two",
    ),
    "pass-through twice": (
        listener("pass_through: [{pool: web}, {pool: web}]"),
        "2:66: l7.listeners[0].pass_through[1]: all other names is in l7.listeners[0].pass_through[0] too; "
        "remove one of the two",
    ),
    "pass-through to a pool with tls": (
        listener("pass_through: {pool: web}").replace("{backends", "{tls: true, backends"),
        "2:59: l7.listeners[0].pass_through.pool: connections are passed through as they are, and pool "
        '"web" has tls; use one without',
    ),
    "pass-through to an unknown pool": (
        listener("pass_through: {pool: wbe}"),
        '2:59: l7.listeners[0].pass_through.pool: there is no pool "wbe"; did you mean "web"?',
    ),
    "a name of SNI that is an address": (
        listener("pass_through: {names: 10.0.0.1, pool: web}"),
        '2:60: l7.listeners[0].pass_through.names: "10.0.0.1" is an address, and clients send none as server '
        "name; use a name",
    ),
}
ROUTES = {
    "nothing to do": (
        l7("routes: [{match: {host: a}}]"),
        "3:12: l7.routes[0]: has none of pool, split, redirect and respond; give it one of them",
    ),
    "two things to do": (
        route("respond: 200"),
        "3:12: l7.routes[0]: has 2 of pool, split, redirect and respond; give it one of them",
    ),
    "unknown pool": (
        l7("routes: [{pool: wbe}]\n  pools: {web: {backends: [10.0.0.1:80]}}"),
        '3:19: l7.routes[0].pool: there is no pool "wbe"; did you mean "web"?',
    ),
    "unknown pool of a split": (
        l7("routes: [{split: {web: 1, b: 1}}]\n  pools: {web: {backends: [10.0.0.1:80]}}"),
        '3:32: l7.routes[0].split.b: there is no pool "b"; known here: web',
    ),
    "a split of nothing": (
        l7("routes: [{split: {web: 0}}]"),
        "3:20: l7.routes[0].split: no pool has a weight above 0; give one to at least one of them",
    ),
    "unknown listener": (
        match("listener: http"),
        '3:31: l7.routes[0].match.listener: there is no listener "http"; known here: 127.0.0.1:80',
    ),
    "a name twice": (
        l7("routes: [{name: a, respond: 200}, {name: a, respond: 200}]"),
        '3:44: l7.routes[1].name: "a" is the name of l7.routes[0] too; change one of the two',
    ),
    "a wrong key": (route("mach: {}"), '3:13: l7.routes[0].mach: unknown key; did you mean "match"?'),
    "headers for nobody": (
        l7("routes: [{respond: 200, request_headers: {}}]"),
        "3:44: l7.routes[0].request_headers: means nothing where no backend is asked (respond); remove it",
    ),
    "redirect to nowhere": (
        l7("routes: [{redirect: example.com}]"),
        '3:23: l7.routes[0].redirect: "example.com" is not a URL; begin with https://, http://, $scheme:// '
        'or / as in "https://$host$request_uri"',
    ),
    "redirect with a wrong status": (
        l7("routes: [{redirect: {to: /x, status: 304}}]"),
        "3:40: l7.routes[0].redirect.status: must be one of 301, 302, 303, 307, 308, not 304",
    ),
    "redirect with a group that is not there": (
        l7("routes: [{match: {path: {regex: ^/(a)}}, redirect: /$2}]"),
        "3:54: l7.routes[0].redirect: $2 is a group that the route's path has not; add it to its expression",
    ),
    "rewrite without prefix": (
        route("rewrite: {prefix: /}"),
        "3:31: l7.routes[0].rewrite.prefix: replaces the prefix of match.path, and there is none; "
        "add one, or use pattern",
    ),
    "rewrite by half": (
        route("rewrite: {pattern: ^/x}"),
        '3:22: l7.routes[0].rewrite: needs replacement; write it as in {pattern: "^/old/(.*)", '
        'replacement: "/new/\\\\1"}',
    ),
    "rewrite with a group that is not there": (
        route("rewrite: {pattern: ^/x, replacement: '/\\1'}"),
        '3:50: l7.routes[0].rewrite.replacement: "/\\1" is not a replacement: invalid group reference 1; '
        "name groups of the pattern as in \\1",
    ),
    "time-out of a connection": (
        route("timeouts: {idle: 5s}"),
        "3:30: l7.routes[0].timeouts.idle: idle is about connections, whatever the route; "
        "write it in l7.defaults.timeouts",
    ),
    "time-out": (
        route("timeouts: {read: 60}"),
        '3:30: l7.routes[0].timeouts.read: "60" is not a duration; write a whole number and ms, s, m or h, '
        "as in 250ms",
    ),
    "rate of nothing": (
        route("timeouts: {body_rate: 0}"),
        "3:35: l7.routes[0].timeouts.body_rate: must be a size from 1 to 1GiB, not 0",
    ),
    "rate with a unit of time": (
        route("timeouts: {write_rate: 1KiB/s}"),
        '3:36: l7.routes[0].timeouts.write_rate: "1KiB/s" is not a size; '
        "write a whole number and B, KiB, MiB or GiB, as in 64KiB",
    ),
    "retries": (
        route("retries: {attempts: 0}"),
        '3:33: l7.routes[0].retries.attempts: must be a whole number from 1 to 16, not "0"',
    ),
    "body": (
        route("max_body: 5MB"),
        '3:23: l7.routes[0].max_body: "5MB" is not a size; '
        "write a whole number and B, KiB, MiB or GiB, as in 64KiB",
    ),
    "a body where there is none": (
        l7("routes: [{respond: {status: 204, body: x}}]"),
        "3:42: l7.routes[0].respond.body: answers of status 204 have no body; remove it",
    ),
}
MATCHES = {
    "host with a port": (
        match("host: example.com:80"),
        '3:27: l7.routes[0].match.host: "example.com:80" is not a host; '
        "leave the port out, and put IPv6 into brackets",
    ),
    "asterisk inside": (
        match("host: www.*.com"),
        '3:27: l7.routes[0].match.host: "www.*.com": an asterisk stands for whole labels at the beginning; '
        'write it as in "*.example.com"',
    ),
    "any host": (
        match('host: "*"'),
        '3:27: l7.routes[0].match.host: "*" is every host; leave the key out',
    ),
    "host": (
        match("host: a_b!"),
        '3:27: l7.routes[0].match.host: "a_b!" is not a host name; use letters, digits, - and dots, '
        "as in www.example.com",
    ),
    "relative path": (
        match("path: api/"),
        '3:27: l7.routes[0].match.path: "api/" is not a path; begin with /',
    ),
    "encoded path": (
        match("path: /a%20b"),
        '3:27: l7.routes[0].match.path: "/a%20b": paths are compared decoded; '
        "write the characters themselves",
    ),
    "path that never is": (
        match("path: /a/../b"),
        '3:27: l7.routes[0].match.path: "/a/../b" can never be found, for requests lose empty and dot '
        "segments; write it without",
    ),
    "path with a query": (
        match('path: "/a?b"'),
        '3:27: l7.routes[0].match.path: "/a?b" has a query; match parameters by "query", beside the path',
    ),
    "two kinds of path": (
        match("path: {exact: /a, prefix: /b}"),
        "3:27: l7.routes[0].match.path: has 2 of prefix, exact and regex; give it one of them",
    ),
    "key of another kind of path": (
        match("path: {exact: /a, ignore_case: true}"),
        "3:52: l7.routes[0].match.path.ignore_case: belongs to regex, and this is exact; remove it",
    ),
    "regular expression": (
        match('path: {regex: "("}'),
        '3:35: l7.routes[0].match.path.regex: "(" is not a regular expression: missing ), unterminated '
        "subpattern at character 1; correct it",
    ),
    "method": (
        match("method: get"),
        '3:29: l7.routes[0].match.method: "get": methods are written in capitals; write "GET"',
    ),
    "header": (
        match('header: {"X Y": a}'),
        '3:37: l7.routes[0].match.header."X Y": "X Y" is not the name of a header; use letters, digits and -',
    ),
    "two ways to match a header": (
        match("header: {X: {is: a, regex: b}}"),
        "3:33: l7.routes[0].match.header.X: has 2 of is, regex and present; give it one of them",
    ),
    "client": (
        match("client: 10.0.0.1/8"),
        '3:29: l7.routes[0].match.client: "10.0.0.1/8" has bits of a host behind the network\'s 8; '
        'write "10.0.0.0/8", or "10.0.0.1" for the one address',
    ),
}
HEADERS = {
    "framing": (
        route("request_headers: {set: {Connection: close}}"),
        "3:49: l7.routes[0].request_headers.set.Connection: Connection belongs to the connection, "
        "and the proxy writes it itself; remove it",
    ),
    "a name twice": (
        route("request_headers: {set: {X-A: a, x-a: b}}"),
        "3:50: l7.routes[0].request_headers.set.x-a: is the same header as X-A; remove one of the two",
    ),
    "set and removed": (
        route("request_headers: {set: {X-A: a}, remove: x-a}"),
        "3:54: l7.routes[0].request_headers.remove: X-A is set, too, which replaces it; remove it here",
    ),
    "unknown variable": (
        route("request_headers: {set: {X: $remote_adr}}"),
        '3:40: l7.routes[0].request_headers.set.X: unknown variable $remote_adr; did you mean "remote_addr"?',
    ),
    "a dollar": (
        route("request_headers: {set: {X: a$}}"),
        '3:40: l7.routes[0].request_headers.set.X: a "$" at character 2 names no variable; '
        'write "$$" for one dollar',
    ),
    "a line end": (
        route('request_headers: {set: {X: "a\\nb"}}'),
        '3:40: l7.routes[0].request_headers.set.X: "a\\nb" has a control character in it; '
        "write it on one line",
    ),
    "a group": (
        route("request_headers: {set: {X: $1}}"),
        "3:40: l7.routes[0].request_headers.set.X: $1 is a group of a regular expression, and there is none "
        'here; write "$$" for one dollar',
    ),
}
POOLS = {
    "name": (
        l7('pools: {"a b": {backends: [10.0.0.1:80]}}'),
        '3:18: l7.pools."a b": "a b" is not a name; use letters, digits and -_.',
    ),
    "no backends": (backends(""), "3:27: l7.pools.web.backends: the list is empty; add at least one backend"),
    "no port": (
        backends("10.0.0.1"),
        '3:28: l7.pools.web.backends[0]: "10.0.0.1" has no port; add one, as in "10.0.0.1:8080"',
    ),
    "an address that is none": (
        backends("10.0.0.256:80"),
        '3:28: l7.pools.web.backends[0]: "10.0.0.256" is not an IP address; write four numbers from 0 to 255 '
        "without leading zeros",
    ),
    "twice": (
        backends("10.0.0.1:80, 10.0.0.1:80"),
        "3:41: l7.pools.web.backends[1]: 10.0.0.1:80 is the same server as l7.pools.web.backends[0]; "
        "remove one of the two",
    ),
    "all backups": (
        backends("{address: '10.0.0.1:80', backup: true}"),
        "3:27: l7.pools.web.backends: all of them are backups, with nothing to be a backup for; "
        "make at least one an ordinary one",
    ),
    "scheduler": (
        pool("scheduler: least-conn"),
        '3:55: l7.pools.web.scheduler: unknown value "least-conn"; did you mean "least-connections"?',
    ),
    "hash_by without hash": (
        pool("hash_by: uri"),
        "3:53: l7.pools.web.hash_by: belongs to consistent-hash, and the scheduler is weighted-round-robin; "
        "change one of the two",
    ),
    "sticky by what it cannot be": (
        pool("sticky: {kind: source, cookie: a}"),
        "3:75: l7.pools.web.sticky.cookie: belongs to insert and learn, and this is source; remove it",
    ),
    "learn without a cookie": (
        pool("sticky: {kind: learn}"),
        "3:52: l7.pools.web.sticky: needs the application's cookie; add cookie: NAME",
    ),
    "a check of UDP": (
        pool("health: {type: dns}"),
        "3:59: l7.pools.web.health.type: dns says nothing of a web server; use http, https, tls or tcp",
    ),
    "an authority that is not asked": (
        pool("tls: {verify: false, ca: /ca.pem}"),
        "3:69: l7.pools.web.tls.ca: is for verification, which is off; remove it, or verify: false",
    ),
    "slow start without checks": (
        pool("passive: false, slow_start: 5s"),
        "3:72: l7.pools.web.slow_start: without a check no backend goes down or comes up; "
        "add health or passive, or remove it",
    ),
    "version of the PROXY protocol": (
        pool("proxy_protocol: 3"),
        '3:60: l7.pools.web.proxy_protocol: must be 1 or 2, the version of the header, not "3"',
    ),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    rows(
        section=SECTION,
        listeners=LISTENERS,
        routes=ROUTES,
        matches=MATCHES,
        headers=HEADERS,
        pools=POOLS,
    ),
)
def test_the_error_is_one_line_with_its_position(text: str, expected: str) -> None:
    assert error_of(lambda: parse_config(text, "lb.yaml")) == f"lb.yaml:{expected}"
