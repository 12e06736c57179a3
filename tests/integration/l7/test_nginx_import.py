"""Imported configurations beside nginx itself: the same file, the same requests, the same answers.

Servers behind both are nginx, too, which say what they were asked for. What stock nginx cannot run (`sticky`,
`health_check`) is run here alone.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from websockets.sync.client import connect
from websockets.sync.server import serve

from l7.nginx.convert import import_nginx
from tests.support.lab import wait_for
from tests.support.nginx import start_nginx
from tests.support.proxy import Proxy, Site

THEIRS, OURS = 9000, 9001
BACKENDS = (8081, 8082, 8083)
DATA = Path(__file__).parents[2] / "data" / "nginx"

SAYS = (
    r"{name}\n$request_method $request_uri\nhost $http_host\nreal $http_x_real_ip\n"
    r"for $http_x_forwarded_for\nproto $http_x_forwarded_proto\ntenant $http_x_tenant\ncookie $http_cookie\n"
)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: str

    @property
    def backend(self) -> str:
        return self.body.partition("\n")[0]

    def said(self, *names: str) -> list[str]:
        """The lines of the backend that begin so; the first two always."""
        lines = self.body.split("\n")
        return lines[1:2] + [line for line in lines[2:] if line.partition(" ")[0] in names]


@dataclass
class Both:
    """nginx and l7lb with the same configuration."""

    site: Site
    proxy: Proxy

    def ask(self, port: int, target: str, host: str = "a.example.com", **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.site.address, port, timeout=10)
        lines = {name.replace("_", "-"): value for name, value in headers.items() if name != "method"}
        connection.request(headers.get("method", "GET"), target, headers={"Host": host, **lines})
        answer = connection.getresponse()
        body = answer.read().decode("latin-1")
        connection.close()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, body)

    def same(self, target: str, host: str = "a.example.com", *fields: str, **headers: str) -> Answer:
        """Asks both; what they and their backends say is the same."""
        theirs = self.ask(THEIRS, target, host, **headers)
        ours = self.ask(OURS, target, host, **headers)
        where = f"{host}{target}"
        assert ours.status == theirs.status, where
        assert _location(ours, host) == _location(theirs, host), where
        for name in ("x-outer", "x-inner", "x-powered-by"):
            assert ours.headers.get(name) == theirs.headers.get(name), where
        if theirs.status == 200:
            assert ours.said(*fields) == theirs.said(*fields), where
        return ours


def _location(answer: Answer, host: str) -> str | None:
    """Without the host where it is the request's: nginx makes paths whole."""
    location = answer.headers.get("location")
    return location and re.sub(rf"^http://{re.escape(host)}(:\d+)?(?=/)", "", location)


def start_backends(site: Site) -> None:
    servers = "".join(
        f"server {{ listen {site.address}:{port}; add_header X-Powered-By php always;"
        f' location / {{ return 200 "{SAYS.format(name=f"b{number}")}"; }}'
        f" location /status/503 {{ return 503; }} location = /health {{ return 200 OK; }} }}\n"
        for number, port in enumerate(BACKENDS, start=1)
    )
    start_nginx(site, "backends", servers, *BACKENDS)


def start_ours(site: Site, text: str) -> Proxy:
    """l7lb with what the import makes of a configuration."""
    path = site.directory / "ours.conf"
    path.write_text(text)
    made = import_nginx(path).text.replace("l7:\n", "l7:\n  workers: 1\n", 1)
    return site.start_proxy(made)


def start_both(site: Site, body: str) -> Both:
    """Both programs with the content of an `http` block; `FRONT` is their port, `B1` to `B3` are backends."""
    for number, port in enumerate(BACKENDS, start=1):
        body = body.replace(f"B{number}", f"{site.address}:{port}")
    start_backends(site)
    theirs = body.replace("FRONT", f"{site.address}:{THEIRS}")
    start_nginx(site, "theirs", theirs, THEIRS)
    return Both(site, start_ours(site, f"http {{ {body.replace('FRONT', f'{site.address}:{OURS}')} }}"))


@pytest.fixture
def tls_files(tmp_path: Path) -> Iterator[tuple[trustme.CA, Path]]:
    authority = trustme.CA()
    file = tmp_path / "cert.pem"
    issued = authority.issue_cert("api.example.com")
    issued.private_key_and_cert_chain_pem.write_to_path(str(file))
    yield authority, file


ROUTING = r"""
upstream up { server B1; }
upstream other { server B2; }
proxy_hide_header X-Powered-By;
proxy_set_header Host $http_host;
server {
    listen FRONT;
    server_name a.example.com www.example.com;
    add_header X-Outer 1 always;
    if ($host = www.example.com) { return 301 https://a.example.com$request_uri; }
    rewrite ^/blog/([0-9]+)$ /posts/$1 permanent;
    rewrite ^/old/(.*)$ /api/$1 last;
    location / { proxy_pass http://up; }
    location /api/ {
        proxy_pass http://other/v2/;
        proxy_set_header Host $host;
        proxy_set_header X-Tenant $http_x_t;
    }
    location /plain { proxy_pass http://other; proxy_set_header X-Tenant one; }
    location = /exact { proxy_pass http://other/found; }
    location ^~ /assets/ { proxy_pass http://other; }
    location ~* \.(gif|png)$ { proxy_pass http://up; add_header X-Inner $uri always; }
    location ~ ^/users/([a-z]+)/ {
        rewrite ^/users/([a-z]+)/(.*)$ /u?name=$1&rest=$2 break;
        proxy_pass http://up;
    }
    location /strip/ { rewrite ^/strip/(.*)$ /$1 break; proxy_pass http://up; }
    location /cookies { proxy_pass http://up; proxy_set_header Cookie ""; proxy_pass_header X-Powered-By; }
    location /login { return 302 /sign-in; }
    location = /fixed { default_type text/plain; return 200 "fixed\nanswer"; }
    location /gone { return 410; }
    location /in { allow 127.0.0.0/8; deny all; proxy_pass http://up; }
    location /out { deny 127.0.0.0/8; allow all; proxy_pass http://up; }
    location /methods { if ($request_method = DELETE) { return 405; } proxy_pass http://up; }
    location /beta { if ($http_x_beta = yes) { return 302 /new$request_uri; } proxy_pass http://up; }
}
server {
    listen FRONT;
    server_name *.shop.example.com .dot.example.com;
    location / { return 301 https://$host$request_uri; }
    location /only { proxy_pass http://other; }
}
server {
    listen FRONT;
    server_name ~^(?<sub>.+)\.dev\.example\.com$ mail.*;
    location /dev { proxy_pass http://other; }
}
server { listen FRONT default_server; server_name _; return 404; }
"""

REQUESTS = [
    *(
        "/",
        "/x?a=1&b=%20",
        "/api/users?q=%2F",
        "/api/a%20b/../c",
        "/api",
        "/apix",
        "/old/x?y=1",
        "/blog/17",
        "/blog/x",
    ),
    *(
        "/plain/a%2Fb",
        "/plainer",
        "/exact",
        "/exact/",
        "/exact?z",
        "/assets/x.gif",
        "/a/b.GIF",
        "//a//b.png",
        "/gif",
    ),
    *(
        "/users/ann/x/y?z=1",
        "/users/Ann/x",
        "/strip/a/b?c",
        "/strip/",
        "/cookies",
        "/login",
        "/fixed",
        "/gone/x",
    ),
    *("/in", "/out", "/methods", "/beta", "/%61pi/x", "/./api/./x", "/api/%E2%82%AC", "/x/..%2fapi/y"),
]
HOSTS = [
    *(
        "a.example.com",
        "A.EXAMPLE.com",
        "www.example.com",
        "b.shop.example.com",
        "dot.example.com",
        "x.dot.example.com",
    ),
    *("x.dev.example.com", "mail.example.org", "shop.example.com", "unknown", "127.0.0.1"),
]


def test_requests_go_the_same_way_as_in_nginx(site):
    both = start_both(site, ROUTING)
    for target in REQUESTS:
        both.same(target, "a.example.com", "host", "tenant", "cookie", Cookie="c=1", X_T="t1")
    for host in HOSTS:
        for target in ("/x", "/only/y", "/dev", "/api/z?q"):
            both.same(target, host, "host")
    for method in ("DELETE", "POST", "HEAD"):
        both.same("/methods", method=method)
    both.same("/beta/x", X_Beta="yes")
    both.same("/beta/x", X_Beta="no")


HEADERS = r"""
upstream up { server B1; }
server {
    listen FRONT;
    location /usual {
        proxy_pass http://up;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
    }
    location /default { proxy_pass http://up; }
    location /port { proxy_pass http://B1; }
}
"""


def test_the_usual_headers_reach_the_backend_as_from_nginx(site):
    both = start_both(site, HEADERS)
    answer = both.same("/usual", "a.example.com:1234", "host", "real", "for", "proto")
    assert answer.said("host", "for") == ["GET /usual", "host a.example.com", "for 127.0.0.1"]
    assert both.same("/default", "a.example.com", "host").said("host") == ["GET /default", "host up"]
    both.same("/port", "a.example.com", "host")
    # What a client says of itself is replaced here, where nginx adds to it.
    lied = both.ask(OURS, "/usual", X_Forwarded_For="8.8.8.8")
    assert lied.said("for") == ["GET /usual", "for 127.0.0.1"]


@pytest.mark.parametrize(
    "upstream",
    [
        "server B1 weight=3; server B2; server B3 backup;",
        "least_conn; server B1 weight=3; server B2 weight=1; server B3 weight=2;",
        "server B1; server B2 down; server B3;",
    ],
)
def test_backends_get_the_same_shares(site, upstream):
    both = start_both(
        site,
        f"upstream up {{ {upstream} }} server {{ listen FRONT; location / {{ proxy_pass http://up; }} }}",
    )
    shares = [Counter(both.ask(port, "/").backend for _ in range(60)) for port in (THEIRS, OURS)]
    assert shares[0] == shares[1] and len(shares[0]) > 1


@pytest.mark.parametrize("method", ["ip_hash;", "hash $request_uri consistent;", "hash $http_x_user;"])
def test_hashing_keeps_to_one_backend(site, method):
    both = start_both(
        site,
        f"upstream up {{ {method} server B1; server B2; server B3; }}"
        "server { listen FRONT; location / { proxy_pass http://up; } }",
    )
    for port in (THEIRS, OURS):
        same = {both.ask(port, "/x", X_User="ann").backend for _ in range(20)}
        assert len(same) == 1
        if method != "ip_hash;":
            several = {both.ask(port, f"/{n}", X_User=f"u{n}").backend for n in range(60)}
            assert len(several) == 3


def test_a_backend_that_answers_503_or_is_away_is_passed_over(site):
    both = start_both(
        site,
        f"upstream up {{ server B1; server {site.address}:1 ; server B3; }}"
        "server { listen FRONT; location / { proxy_pass http://up; } }",
    )
    for port in (THEIRS, OURS):
        assert {both.ask(port, "/").status for _ in range(30)} == {200}


def test_large_bodies_are_refused_as_in_nginx(site):
    start_both(
        site,
        "client_max_body_size 1k; upstream up { server B1; }"
        "server { listen FRONT; location / { proxy_pass http://up; }"
        " location /big { client_max_body_size 0; proxy_pass http://up; } }",
    )
    for port in (THEIRS, OURS):
        for target, size, status in (("/", 1024, 200), ("/", 1025, 413), ("/big", 10_000, 200)):
            connection = http.client.HTTPConnection(site.address, port, timeout=10)
            connection.request("POST", target, body=b"x" * size)
            assert connection.getresponse().status == status
            connection.close()


# -- the snippets that everything began with


def with_backends(site: Site, name: str) -> str:
    """A snippet whose servers are ours."""
    text = (DATA / f"{name}.conf").read_text()
    for number, port in enumerate(BACKENDS, start=1):
        text = re.sub(rf"10\.0\.0\.{number}(:8080)?(?=[ ;])", f"{site.address}:{port}", text)
    return text


def test_the_basic_snippet_ends_tls_and_forwards_as_nginx_does(site, tls_files):
    authority, file = tls_files
    start_backends(site)
    text = (
        with_backends(site, "basic")
        .replace("/path/to/cert.pem", str(file))
        .replace("/path/to/key.pem", str(file))
    )
    theirs = re.search(r"http \{(.*)\}", text, re.DOTALL)[1].replace("443", f"{site.address}:{THEIRS}")
    start_nginx(site, "theirs", theirs, THEIRS)
    start_ours(site, text.replace("443", f"{site.address}:{OURS}"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    said = []
    for port in (THEIRS, OURS):
        bodies = []
        for _ in range(8):
            raw = socket.create_connection((site.address, port), timeout=10)
            with context.wrap_socket(raw, server_hostname="api.example.com") as secure:
                secure.sendall(b"GET /users?x HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n")
                answer = http.client.HTTPResponse(secure)
                answer.begin()
                bodies.append(answer.read().decode())
        said.append(Counter(bodies))
    assert said[0] == said[1]
    assert {body.partition("\n")[0] for body in said[1]} == {"b1", "b2"}
    assert "proto https" in next(iter(said[1]))


def test_the_snippet_of_routes_by_url(site):
    text = with_backends(site, "locations").replace("listen 443 ssl", "listen FRONT")
    upstreams = "".join(
        f"upstream {name}_backend {{ server B{number}; }}"
        for number, name in enumerate(("api", "static", "web"), 1)
    )
    both = start_both(site, upstreams + text)
    for target, backend in (("/api/x", "b1"), ("/static/y?z", "b2"), ("/", "b3"), ("/apix", "b3")):
        assert both.same(target, "example.com", "host").backend == backend


def test_the_snippet_of_a_sticky_cookie_keeps_sessions(site):
    start_backends(site)
    snippet = with_backends(site, "sticky").partition("# Nginx: Cookie")[2]
    start = f"server {{ listen {site.address}:{OURS}; location / {{ proxy_pass http://backend; }} }}"
    both = Both(site, start_ours(site, "#" + snippet + start))
    first = [both.ask(OURS, "/") for _ in range(4)]
    assert {answer.backend for answer in first} == {"b1", "b2"}
    for answer in first:
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("srv_id=") and "Max-Age=3600" in cookie
        for _ in range(5):
            again = both.ask(OURS, "/", Cookie=cookie.partition(";")[0])
            assert again.backend == answer.backend and "set-cookie" not in again.headers


def test_the_snippet_of_health_checks_finds_the_backend_that_is_not_well(site):
    start_backends(site)
    text = with_backends(site, "health").replace("interval=5s", "interval=1s")
    text = text.replace(f"server {site.address}:{BACKENDS[1]};", f"server {site.address}:1;")
    start = f"server {{ listen {site.address}:{OURS}; location / {{ proxy_pass http://backend; }} }}"
    both = Both(site, start_ours(site, text + start))
    wait_for(
        lambda: {row["state"] for row in both.proxy.backends().values()} == {"up", "down"},
        20,
        "the check to find the dead backend",
    )
    assert {both.ask(OURS, "/").backend for _ in range(6)} == {"b1"}


def test_websockets_are_upgraded_where_nginx_upgrades_them(site):
    with serve(lambda socket: [socket.send(message) for message in socket], site.address, 0) as echo:
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        port = echo.socket.getsockname()[1]
        both = start_both(
            site,
            "map $http_upgrade $connection_upgrade { default upgrade; '' close; }"
            f"upstream ws {{ server {site.address}:{port}; }}"
            "server { listen FRONT; location /ws { proxy_pass http://ws; proxy_http_version 1.1;"
            " proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; }"
            " location /plain { proxy_pass http://ws; } }",
        )
        for front in (THEIRS, OURS):
            with connect(f"ws://{site.address}:{front}/ws", open_timeout=10) as client:
                client.send("hello")
                assert client.recv(timeout=10) == "hello"
            assert both.ask(front, "/plain", Connection="Upgrade", Upgrade="websocket").status >= 400
        echo.shutdown()
