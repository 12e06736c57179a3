"""Whatever the `l7` section holds, reading it ends in a configuration that can be compiled, or in one line
with a position."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from l4lb.errors import ConfigError
from l7.config.advice import locate
from l7.config.parse import parse_placed
from l7.model import L7Config
from l7.routing.router import Router
from tests.support.config_texts import (
    SOURCE,
    TEXTS,
    check_error,
    check_said,
    with_another_value,
    with_other_pieces,
)

VALID = r"""
l7:
  workers: 2
  user: www-data
  group: www-data
  secret: 00112233445566778899aabbccddeeff
  metrics: 127.0.0.1:9101
  shutdown_timeout: 30s
  trusted_proxies: [10.0.0.0/8]
  access_log: {path: /var/log/l7lb.log, format: json}
  error_pages: {502: /etc/502.html}
  limits: {request_line: 8KiB, header_bytes: 32KiB, header_count: 100,
           requests_per_connection: 9, connections: 9}
  defaults:
    timeouts: {header: 1s, body: 1s, write: 1s, idle: 1s, connect: 1s, read: 1s, backend_write: 1s,
               total: none, upgraded: 1h, queue: 1s, backend_idle: 1s}
    retries: {attempts: 3, budget: 20%, statuses: [502, 503-504]}
    response_headers: {set: {Server: l7lb}, remove: [X-Powered-By]}
    upgrades: [websocket]
  listeners:
    - name: http
      listen: [127.0.0.1:80, "[::1]:80"]
      accept_proxy: 10.0.0.0/8
      max_connections: 100
    - name: https
      listen: 127.0.0.1:443
      tls:
        certificates: [{cert: /c.pem, key: /c.key}, /d.pem]
        refuse_unknown: true
        min_version: 1.2
        ciphers: ECDHE+AESGCM
        client_ca: /ca.pem
        client_certificates: optional
    - name: passed
      listen: 127.0.0.1:8443
      pass_through: [{names: [a.example.com, "*.b.example.com"], pool: plain}, {pool: api}]
  routes:
    - name: api
      match:
        host: [example.com, "*.example.com"]
        path: [/api/, {exact: /x}, {regex: "^/(a+)$", ignore_case: true}, {prefix: /y, before_regex: true}]
        method: [GET, POST]
        header: {X-A: "1", X-B: {regex: "^a", negate: true}, X-C: {present: false}}
        query: {q: {is: "1"}}
        cookie: {c: "1"}
        client: [10.0.0.0/8]
        listener: http
      pool: api
      rewrite: {prefix: /v2/}
      request_headers: {set: {Host: $host}, add: {X-T: [a, "$http_x_a"]}, remove: Cookie}
      timeouts: {total: 5s}
      retries: false
      max_body: none
      upgrades: []
      priority: 5
    - {match: {path: /split}, split: {web: 9, api: 1}, rewrite: {pattern: ^/s(.*), replacement: '/t\1?a=\1'}}
    - {match: {path: {regex: "/(a)"}}, redirect: {to: "https://$host/$1", status: 301}}
    - {respond: {status: 200, body: "hello", content_type: text/html}}
  pools:
    web:
      scheduler: consistent-hash
      hash_by: {header: X-User}
      sticky: {kind: insert, cookie: S, max_age: 1h, path: /, domain: example.com, secure: auto,
               http_only: true, same_site: Strict}
      health: {type: http, path: /health, expect: {status: 200, body: OK}}
      passive: {failures: 3, inhibit: 10s, longest: 1m, max_ejected: 50%, statuses: 500-599}
      slow_start: 30s
      max_queue: 10
      max_idle: 10
      tls: {verify: true, ca: /ca.pem, server_name: a.internal, certificate: /c.pem, key: /c.key}
      proxy_protocol: 2
      resolve: 30s
      backends:
        - 10.0.0.1:8080
        - {address: "[2001:db8::1]:80", weight: 3, backup: true, max_connections: 10}
    api:
      sticky: {kind: learn, cookie: PHPSESSID, capacity: 10}
      backends: [api.internal:8080]
    plain:
      backends: [10.0.0.2:443]
"""

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=8),
    st.sampled_from(
        [
            *("10.0.0.1:80", "[::1]:80", "a.b:1", "*.a", "/x", "/x/../y", "$host", "$1", "\\1", "(", "a?b"),
            *("GET", "https", "web", "1MiB", "5s", "50%", "none", "auto", "301", "\ud800", "\0", "/p\n"),
        ]
    ),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("pool", "path", "host", "exact", "regex", "prefix", "set", "to", "status", "cookie"),
                    *("pattern", "replacement", "names", "listen", "address", "kind", "web", "x", "X-A"),
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


def test_the_file_that_others_are_made_from_is_valid() -> None:
    assert read(VALID)


def read(text: str) -> L7Config | None:
    """What `text` says, or None after an error of the right form."""
    try:
        placed = parse_placed(text, SOURCE)
    except ConfigError as error:
        check_error(str(error), text)
        return None
    for where, advice in locate(placed):
        check_said(f"{where}: {advice}")
    assert Router(placed.value.routes).routes is not None
    return placed.value


@settings(deadline=None)
@given(TEXTS)
def test_arbitrary_text(text: str) -> None:
    read(text)


@settings(deadline=None)
@given(with_other_pieces(VALID))
def test_a_valid_file_with_pieces_cut_out_and_put_in(text: str) -> None:
    read(text)


@settings(deadline=None)
@given(with_another_value(VALID, _VALUES))
def test_a_valid_file_with_a_value_replaced(text: str) -> None:
    read(text)
