"""nginx's configuration → ours: what each directive becomes, and what is said of those that become none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from l4lb.errors import ConfigError
from l4lb.model import CheckType
from l7.cli.main import cli
from l7.config.parse import parse_config
from l7.model import (
    ClientCertificates,
    L7Config,
    LogFormat,
    PathKind,
    PathMatch,
    Redirect,
    Rewrite,
    Route,
    Scheduler,
    Share,
    StickyKind,
)
from l7.nginx.convert import Imported, import_nginx
from l7.nginx.remarks import Kind
from l7.routing.request import PlainRequest
from l7.routing.router import Router
from tests.unit.l7.clients import Client

DATA = Path(__file__).parents[2] / "data" / "nginx"


class Read:
    """An import, read back."""

    def __init__(self, path: Path) -> None:
        self.imported: Imported = import_nginx(path)
        self.config: L7Config = parse_config(self.imported.text, "import")

    def said(self, kind: Kind) -> list[str]:
        return [
            f"{one.line}: {one.directive}: {one.text}" for one in self.imported.remarks if one.kind is kind
        ]

    @property
    def lost(self) -> list[str]:
        return self.said(Kind.LOST)

    def route(self, url: str, listener: str = "http", **headers: str) -> Route | None:
        """The route of a request for HOST/PATH."""
        host, slash, path = url.partition("/")
        lines = [(b"Host", host.encode()), *((k.encode(), v.encode()) for k, v in headers.items())]
        request = PlainRequest(b"GET", (slash + path).encode(), lines)
        found = Router(self.config.routes).route(request, Client(listener=listener))
        return found.route if found else None

    def target(self, path: str, host: str = "a") -> str:
        request = PlainRequest(b"GET", path.encode(), [(b"Host", host.encode())])
        found = Router(self.config.routes).route(request, Client(listener="http"))
        assert found
        return found.target(request).decode()


@pytest.fixture
def read(tmp_path):
    def from_text(text: str) -> Read:
        path = tmp_path / "nginx.conf"
        path.write_text(text)
        return Read(path)

    return from_text


BACKEND = "upstream up { server 10.0.0.1:80; server 10.0.0.2:80; }\n"


def server(*lines: str, names: str = "", listen: str = "listen 80;") -> str:
    body = "\n".join(lines)
    return f"server {{ {listen} {f'server_name {names};' if names else ''}\n{body}\n}}\n"


# -- the snippets that everything began with


def test_least_conn_with_weights_and_a_backup_behind_tls() -> None:
    seed = Read(DATA / "basic.conf")
    (pool,) = seed.config.pools
    assert pool.scheduler is Scheduler.WEIGHTED_LEAST_CONNECTIONS
    assert [(b.name, b.weight, b.is_backup) for b in pool.backends] == [
        ("10.0.0.1:8080", 3, False),
        ("10.0.0.2:8080", 1, False),
        ("10.0.0.3:8080", 1, True),
    ]
    (listener,) = seed.config.listeners
    assert listener.tls and str(listener.tls.certificates[0].key) == "/path/to/key.pem"
    (route,) = seed.config.routes
    assert route.shares == (Share("api_backend"),)
    assert route.request_headers.set == ((b"Host", "$host"),)
    assert (route.timeouts.connect_s, route.timeouts.read_s) == (5.0, 60.0)
    assert seed.imported.remarks == []


def test_routes_by_url() -> None:
    seed = Read(DATA / "locations.conf")
    for url, pool in (("/api/x", "api_backend"), ("/static/x", "static_backend"), ("/x", "web_backend")):
        route = seed.route(f"example.com{url}", "https")
        assert route and route.shares == (Share(pool),)
    assert [text for text in seed.lost if "no ssl_certificate" not in text] == []


def test_ip_hash_and_a_sticky_cookie() -> None:
    seed = Read(DATA / "sticky.conf")
    first, second = seed.config.pools
    assert first.scheduler is Scheduler.SOURCE_HASH
    assert second.sticky and (second.sticky.cookie, second.sticky.max_age_s) == (b"srv_id", 3600)
    assert [backend.name for backend in first.backends] == ["10.0.0.1:80", "10.0.0.2:80"]
    assert seed.lost == []


def test_health_check_and_match() -> None:
    seed = Read(DATA / "health.conf")
    (pool,) = seed.config.pools
    check = pool.health
    assert check and (check.type, check.path, check.interval_s) == (CheckType.HTTP, "/health", 5.0)
    assert (check.expect.status, check.expect.pattern) == (((200, 200),), "OK")
    assert seed.lost == []


# -- upstreams


@pytest.mark.parametrize(
    ("line", "scheduler", "by"),
    [
        ("", Scheduler.WEIGHTED_ROUND_ROBIN, None),
        ("least_conn;", Scheduler.WEIGHTED_LEAST_CONNECTIONS, None),
        ("ip_hash;", Scheduler.SOURCE_HASH, None),
        ("hash $remote_addr;", Scheduler.SOURCE_HASH, None),
        ("hash $request_uri consistent;", Scheduler.CONSISTENT_HASH, ("uri", b"")),
        ("hash $http_x_user;", Scheduler.CONSISTENT_HASH, ("header", b"x-user")),
        ("hash $cookie_sid;", Scheduler.CONSISTENT_HASH, ("cookie", b"sid")),
        ("random two least_conn;", Scheduler.POWER_OF_TWO, None),
        ("least_time header;", Scheduler.LEAST_TIME, None),
    ],
)
def test_methods(read, line: str, scheduler: Scheduler, by: tuple[str, bytes] | None) -> None:
    pool = read(f"upstream up {{ {line} server 10.0.0.1; server 10.0.0.2; }}").config.pools[0]
    assert pool.scheduler is scheduler
    assert (pool.hash_by and (pool.hash_by.kind, pool.hash_by.name)) == by


def test_options_of_servers(read) -> None:
    done = read(
        "upstream up { server a.internal:8080 weight=5 max_conns=10 max_fails=3 fail_timeout=30s"
        " slow_start=1m; server 10.0.0.1 down;"
        " server [2001:db8::1]:80 backup max_fails=3 fail_timeout=30s slow_start=1m;"
        " keepalive 16; queue 100 timeout=70s; zone z 64k; }"
    )
    (pool,) = done.config.pools
    assert [(b.name, b.weight, b.is_backup, b.max_connections) for b in pool.backends] == [
        ("a.internal:8080", 5, False, 10),
        ("10.0.0.1:80", 0, False, None),
        ("[2001:db8::1]:80", 1, True, None),
    ]
    assert pool.passive
    assert (pool.passive.failures, pool.passive.inhibit_s, pool.passive.longest_s) == (3, 30.0, 30.0)
    assert (pool.slow_start_s, pool.max_idle, pool.max_queue) == (60.0, 16, 100)
    assert done.config.timeouts.queue_s == 70.0
    assert done.lost == []


def test_what_nginx_does_without_being_told_is_written_out(read) -> None:
    done = read(BACKEND + server("location / { proxy_pass http://up; }"))
    (route,), (pool,) = done.config.routes, done.config.pools
    assert pool.passive and (pool.passive.failures, pool.passive.max_ejected) == (1, 1.0)
    assert route.request_headers.set == ((b"Host", "up"),)
    assert (route.timeouts.connect_s, route.timeouts.upgraded_s, done.config.timeouts.header_s) == (
        60,
        60,
        60,
    )
    assert (route.retries.attempts, route.retries.budget, route.upgrades) == (2, 1.0, ())
    assert read("upstream up { server 10.0.0.1 max_fails=0; }").config.pools[0].passive is None


def test_sessions(read) -> None:
    cookie = "sticky cookie s expires=max domain=.example.com path=/x secure httponly samesite=strict;"
    sticky = read(f"upstream up {{ server 10.0.0.1; {cookie} }}").config.pools[0].sticky
    assert sticky and (sticky.domain, sticky.path, sticky.secure, sticky.same_site) == (
        b"example.com",
        b"/x",
        True,
        "Strict",
    )
    learn = "sticky learn create=$upstream_cookie_sid lookup=$cookie_sid zone=z:1m timeout=1h;"
    sticky = read(f"upstream up {{ server 10.0.0.1; {learn} }}").config.pools[0].sticky
    assert sticky and (sticky.kind, sticky.cookie, sticky.max_age_s) == (StickyKind.LEARN, b"sid", 3600)
    assert "sessions are known by" in read("upstream up { server 10.0.0.1; sticky route $x; }").lost[0]


def test_one_upstream_with_and_without_tls_is_two_pools(read) -> None:
    done = read(
        "upstream up { server api.internal:443; }"
        + server(
            "location /a { proxy_pass https://up; proxy_ssl_verify on; proxy_ssl_trusted_certificate /ca.pem;"
            " proxy_ssl_name api.internal; }",
            "location /b { proxy_pass http://up; }",
            "location /c { proxy_pass https://other.internal; }",
        )
    )
    pools = {pool.name: pool for pool in done.config.pools}
    secure = done.route("a/a")
    assert secure and (tls := pools[secure.shares[0].pool].tls)
    assert (tls.verify, str(tls.ca), tls.server_name) == (True, "/ca.pem", "api.internal")
    plain, other = done.route("a/b"), done.route("a/c")
    assert plain and pools[plain.shares[0].pool].tls is None
    assert other and (pool := pools[other.shares[0].pool])
    assert pool.tls and not pool.tls.verify and pool.backends[0].name == "other.internal:443"


# -- servers and listeners


def test_servers_are_told_apart_by_name_and_endpoint(read) -> None:
    done = read(
        BACKEND
        + server("return 201;", names="first.example.com")
        + server("return 202;", names="www.example.com .shop.example.com www.example.*")
        + server("return 203;", names=r"~^(?<sub>.+)\.dev\.example\.com$")
        + server("return 204;", names="www.example.com", listen="listen 8080; listen 10.0.0.1:8080;")
    )
    expected = {
        *(("first.example.com", "http", 201), ("anything", "http", 201), ("www.example.com", "http", 202)),
        *(("shop.example.com", "http", 202), ("a.b.shop.example.com", "http", 202)),
        *(("www.example.org:80", "http", 202), ("x.dev.example.com", "http", 203)),
        *(("www.example.com", "http-8080", 204), ("anything", "http-8080", 204)),
    }
    for host, listener, status in expected:
        route = done.route(f"{host}/x", listener)
        assert route and route.respond and route.respond.status == status, host
    assert [(one.name, len(one.endpoints)) for one in done.config.listeners] == [
        ("http", 1),
        ("http-8080", 2),
    ]


def test_a_default_server_whose_names_another_could_take(read) -> None:
    done = read(
        server("return 201;", names="www.example.com", listen="listen 80 default_server;")
        + server("return 202;", names="*.example.com")
    )
    for host, status in (("www.example.com", 201), ("a.example.com", 202), ("example.org", 201)):
        route = done.route(f"{host}/")
        assert route and route.respond and route.respond.status == status


def test_a_server_answers_for_what_its_locations_leave(read) -> None:
    done = read(
        BACKEND
        + server("return 201;")
        + server("location /a/ { proxy_pass http://up; }", names="a.example.com")
    )
    route = done.route("a.example.com/b")
    assert route and route.respond and route.respond.status == 404


def test_tls_of_a_listener(read) -> None:
    tls = (
        "ssl_certificate {0}.pem; ssl_certificate_key {0}.key; ssl_protocols TLSv1.3;"
        " ssl_client_certificate /ca.pem; ssl_verify_client optional;"
    )
    done = read(
        server(tls.format("/a"), "return 201;", names="a.example.com", listen="listen 443 ssl;")
        + server(tls.format("/b"), "return 202;", names="b.example.com", listen="listen 443 ssl http2;")
    )
    (listener,) = done.config.listeners
    assert listener.tls
    assert [str(one.cert) for one in listener.tls.certificates] == ["/a.pem", "/b.pem"]
    assert (listener.tls.min_version, listener.tls.client_certificates) == (
        "1.3",
        ClientCertificates.OPTIONAL,
    )
    assert done.lost == []


def test_a_server_whose_clients_would_not_be_asked_for_certificates_is_closed(read) -> None:
    tls = "ssl_certificate /a.pem;"
    done = read(
        server(tls, "return 201;", listen="listen 443 ssl;")
        + server(
            tls,
            "ssl_verify_client on; ssl_client_certificate /ca.pem; return 202;",
            names="b.example.com",
            listen="listen 443 ssl;",
        )
    )
    route = done.route("b.example.com/", "https")
    assert route and route.respond and route.respond.status == 403
    assert any("ssl_verify_client on" in line and "403" in line for line in done.lost)


def test_proxies_in_front(read) -> None:
    done = read("set_real_ip_from 10.0.0.0/8; real_ip_header X-Forwarded-For;" + server("return 200;"))
    assert [str(network) for network in done.config.trusted_proxies] == ["10.0.0.0/8"]
    done = read(
        "set_real_ip_from 10.0.0.0/8; real_ip_header proxy_protocol;"
        + server("return 200;", listen="listen 80 proxy_protocol;")
    )
    assert done.config.trusted_proxies == ()
    assert [str(network) for network in done.config.listeners[0].accept_proxy] == ["10.0.0.0/8"]


# -- locations


def test_locations_are_found_as_in_nginx(read) -> None:
    done = read(
        BACKEND
        + server(
            *(
                "location = / { return 201; }",
                "location / { return 202; }",
                "location /documents/ { return 203; }",
            ),
            *("location ^~ /images/ { return 204; }", r"location ~* \.(gif|jpg|jpeg)$ { return 205; }"),
        )
    )
    for path, status in (
        *(("/", 201), ("/index.html", 202), ("/documents/document.html", 203), ("/images/1.gif", 204)),
        ("/documents/1.JPG", 205),
    ):
        route = done.route(f"a{path}")
        assert route and route.respond and route.respond.status == status


def test_an_expression_in_a_location_holds_below_it_only(read) -> None:
    done = read(
        server(
            "location / { return 201; }", r"location /a/ { return 202; location ~ \.php$ { return 203; } }"
        )
    )
    for path, status in (("/a/x.php", 203), ("/x.php", 201), ("/a/x", 202)):
        route = done.route(f"a{path}")
        assert route and route.respond and route.respond.status == status


@pytest.mark.parametrize(
    ("location", "path", "target"),
    [
        ("location /a/ { proxy_pass http://up; }", "/a/%41?x=1", "/a/%41?x=1"),
        ("location /a/ { proxy_pass http://up/; }", "/a/b?x=1", "/b?x=1"),
        ("location /a/ { proxy_pass http://up/v2/; }", "/a/b%20c", "/v2/b%20c"),
        ("location = /a { proxy_pass http://up/z; }", "/a?x", "/z?x"),
        ("location /a/ { rewrite ^/a/(.*)$ /$1 break; proxy_pass http://up; }", "/a/b?x", "/b?x"),
        ("location /a/ { rewrite ^/a/(.*)$ /s?q=$1 break; proxy_pass http://up; }", "/a/b?x", "/s?q=b&x"),
        ("rewrite ^/a/(.*)$ /new/$1 last; location /new/ { proxy_pass http://up/v2/; }", "/a/b", "/v2/b"),
    ],
)
def test_what_becomes_of_the_path(read, location: str, path: str, target: str) -> None:
    done = read(BACKEND + server(location))
    assert done.target(path) == target
    assert done.lost == []


@pytest.mark.parametrize(
    ("line", "url", "redirect"),
    [
        ("return 301 https://$host$request_uri;", "/x?y", Redirect("https://$host$request_uri", 301)),
        ("return https://b/;", "/x", Redirect("https://b/", 302)),
        ("return 302 /login;", "/x", Redirect("/login", 302)),
        ("rewrite ^/old/(.*)$ /new/$1 permanent;", "/old/x", Redirect("/new/$1$is_args$args", 301)),
        ("rewrite ^/old/(.*)$ /new/$1? redirect;", "/old/x", Redirect("/new/$1", 302)),
        (
            "rewrite ^ https://$server_name$request_uri? permanent;",
            "/x",
            Redirect("https://a$request_uri", 301),
        ),
        ("location = /old { rewrite ^ /new permanent; }", "/old", Redirect("/new$is_args$args", 301)),
        (
            "location ^~ /o/ { rewrite ^/o/(.*) /n/$1 permanent; }",
            "/o/x",
            Redirect("/n/$1$is_args$args", 301),
        ),
        (
            "if ($scheme = http) { return 301 https://$host$request_uri; }",
            "/",
            Redirect("https://$host$request_uri", 301),
        ),
        (
            "if ($host = a) { return 301 https://b$request_uri; } location /x { return 200; }",
            "/x",
            Redirect("https://b$request_uri", 301),
        ),
        ("if ($request_method ~ ^(GET|HEAD)$) { return 303 /got; }", "/x", Redirect("/got", 303)),
        ("location /x { if ($http_x_old) { return 302 /old; } return 200; }", "/x", Redirect("/old", 302)),
        (
            "if ($cookie_v = 2) { rewrite ^/(.*)$ /v2/$1 redirect; }",
            "/x",
            Redirect("/v2/$1$is_args$args", 302),
        ),
    ],
)
def test_redirects(read, line: str, url: str, redirect: Redirect) -> None:
    done = read(server(line, names="a"))
    route = done.route(f"a{url}", **{"X-Old": "1", "Cookie": "v=2"})
    assert route and route.redirect == redirect
    assert done.lost == []


def test_an_expression_below_an_expression_asks_for_both(read) -> None:
    done = read(
        BACKEND
        + server(r"location ~* \.php$ { rewrite ^/old/(.*)$ /new/$1 permanent; proxy_pass http://up; }")
    )
    route = done.route("a/old/x.PHP")
    assert route and route.redirect == Redirect("/new/$1$is_args$args", 301)
    route = done.route("a/x.PHP")
    assert route and route.shares == (Share("up"),)
    assert done.route("a/old/x") is None


def test_fixed_answers(read) -> None:
    done = read(
        server(
            r'location = /h { default_type text/html; return 200 "a\n\"b\""; }', "location / { return 444; }"
        )
    )
    route = done.route("a/h")
    assert route and route.respond
    assert (route.respond.body, route.respond.content_type) == (b'a\n"b"', b"text/html")
    route = done.route("a/x")
    assert route and route.respond and route.respond.status == 404


def test_headers(read) -> None:
    done = read(
        BACKEND
        + "add_header X-Outer 1 always; proxy_hide_header X-Powered-By;"
        + server(
            "location /a { proxy_pass http://up; proxy_set_header Host $http_host;"
            ' proxy_set_header X-Tenant $http_t; proxy_set_header Cookie "";'
            ' proxy_set_header X-Real-IP $remote_addr; proxy_set_header Connection ""; }',
            "location /b { proxy_pass http://up:80/; add_header X-Inner 1 always;"
            " add_header X-Inner 2 always; }",
            "location /c { proxy_pass http://up; proxy_set_header X $upstream_addr; }",
        )
    )
    first, second = done.route("a/a"), done.route("a/b")
    assert first and first.request_headers.set == ((b"X-Tenant", "$http_t"),)
    assert first.request_headers.remove == (b"Cookie",)
    assert first.response_headers.add == ((b"X-Outer", "1"),)
    assert first.response_headers.remove == (b"X-Powered-By",)
    assert second and second.response_headers.add == ((b"X-Inner", "1"), (b"X-Inner", "2"))
    assert [line for line in done.lost if "$upstream_addr" in line]


def test_websockets_are_upgraded_where_headers_say_so(read) -> None:
    done = read(
        "map $http_upgrade $connection_upgrade { default upgrade; '' close; }"
        + BACKEND
        + server(
            "location /ws { proxy_pass http://up; proxy_http_version 1.1;"
            " proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;"
            " proxy_read_timeout 1d; }",
            "location / { proxy_pass http://up; }",
        )
    )
    socket, plain = done.route("a/ws"), done.route("a/")
    assert socket and (socket.upgrades, socket.timeouts.upgraded_s) == ((b"websocket",), 86400.0)
    assert plain and plain.upgrades == ()
    assert done.lost == []


def test_retries_bodies_and_splits(read) -> None:
    done = read(
        BACKEND
        + "split_clients $remote_addr $which { 10% a; * up; } upstream a { server 10.0.0.3; }"
        + "client_max_body_size 8m;"
        + server(
            "location /a { proxy_pass http://up; proxy_next_upstream error http_502 http_503;"
            " proxy_next_upstream_tries 3; client_max_body_size 0; }",
            "location /b { proxy_pass http://up; proxy_next_upstream off; }",
            "location / { proxy_pass http://$which; }",
        )
    )
    first, second, third = done.route("a/a"), done.route("a/b"), done.route("a/")
    assert first and (first.retries.attempts, first.retries.statuses) == (3, ((502, 502), (503, 503)))
    assert first.max_body is None
    assert second and second.retries.attempts == 1 and second.max_body == 8 << 20
    assert third and third.shares == (Share("a", 1000), Share("up", 9000))


def test_access_by_address(read) -> None:
    done = read(
        BACKEND
        + server(
            "location /in { allow 192.0.2.0/24; deny all; proxy_pass http://up; }",
            "location /out { deny 192.0.2.1; allow all; proxy_pass http://up; }",
            "location /turns { allow 192.0.2.1; deny 192.0.2.0/24; allow all; proxy_pass http://up; }",
            'location /who { auth_basic "x"; proxy_pass http://up; }',
        )
    )
    statuses = {}
    for path in ("in", "out", "turns", "who"):
        route = done.route(f"a/{path}")
        assert route
        statuses[path] = route.respond.status if route.respond else 200
    assert statuses == {"in": 200, "out": 403, "turns": 403, "who": 403}
    assert any("auth_basic" in line and "403" in line for line in done.lost)
    assert any("in turns" in line for line in done.lost)


def test_files_are_said_to_be_lost(read) -> None:
    done = read(
        BACKEND
        + server(
            "location /files/ { root /srv; }",
            "location / { try_files $uri @app; }",
            "location @app { proxy_pass http://up; }",
            "location /php { fastcgi_pass unix:/x; }",
        )
    )
    files, app = done.route("a/files/x"), done.route("a/x")
    assert files and files.respond and files.respond.status == 404
    assert app and app.shares == (Share("up"),)
    assert any("files are not served here" in line for line in done.lost)
    assert any("HTTP only" in line for line in done.lost)


# -- the whole


def test_settings_of_the_process(read) -> None:
    done = read(
        "user www-data adm; worker_processes 4; events { worker_connections 512; } http {"
        "log_format j escape=json '{}'; access_log /var/log/a.log j; large_client_header_buffers 4 16k;"
        "error_page 502 503 /e.html;"
        + server("location = /e.html { root /srv; internal; }", "location / { return 200; }")
        + "}"
    )
    config = done.config
    assert (config.user, config.group, config.workers) == ("www-data", "adm", 4)
    assert (config.limits.connections, config.limits.request_line, config.limits.header_bytes) == (
        *(512, 16 << 10),
        64 << 10,
    )
    assert config.access_log and (str(config.access_log.path), config.access_log.format) == (
        "/var/log/a.log",
        LogFormat.JSON,
    )
    assert [(status, str(page)) for status, page in config.error_pages] == [
        (502, "/srv/e.html"),
        (503, "/srv/e.html"),
    ]


def test_streams_by_the_name_in_the_client_hello(read) -> None:
    done = read(
        "stream { map $ssl_preread_server_name $to"
        " { hostnames; a.example.com one; .b.example.com one; default two; }"
        "upstream one { server 10.0.0.1:443; } upstream two { server 10.0.0.2:443; }"
        "server { listen 8443; ssl_preread on; proxy_pass $to; proxy_protocol on; } }"
    )
    (listener,) = done.config.listeners
    assert [(rule.names, rule.pool) for rule in listener.pass_through] == [
        (("a.example.com", "b.example.com", "*.b.example.com"), "one"),
        ((), "two"),
    ]
    assert all(pool.proxy_protocol == 1 for pool in done.config.pools)


def test_includes_are_followed_and_their_lines_named(tmp_path) -> None:
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "a.conf").write_text(
        BACKEND + server("location / { proxy_pass http://up; gzip on; }")
    )
    main = tmp_path / "nginx.conf"
    main.write_text("http {\n include sites/*.conf;\n include mime.types;\n}")
    done = Read(main)
    assert [
        (Path(one.file).name, one.line, one.directive)
        for one in done.imported.remarks
        if one.kind is Kind.LOST
    ] == [
        ("nginx.conf", 3, "include mime.types"),
        ("a.conf", 3, "gzip on"),
    ]
    assert "# a.conf:1" in done.imported.text


def test_lines_that_need_nothing_are_told_from_those_that_are_lost(read) -> None:
    done = read(
        "sendfile on; ssl_protocols TLSv1; limit_req_zone $x zone=a:1m rate=1r/s; something_new 1;" + BACKEND
    )
    assert [line.partition(":")[2].split()[0] for line in done.said(Kind.NEEDLESS)] == [
        "sendfile",
        "ssl_protocols",
    ]
    assert [line.partition(":")[2].split()[0] for line in done.lost] == ["limit_req_zone", "something_new"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("server {\n listen 80;\n}\n}", '4: unexpected "}"'),
        ("server {\n listen 80;", '2: unexpected end of file, expecting "}"'),
        ("\nkeepalive_timeout 5", '2: unexpected end of file, expecting ";" or "{"'),
        (
            "upstream u {\n server a weight=x;\n}",
            "2: server a weight=x: invalid literal for int() with base 10: 'x'",
        ),
        ("\nclient_max_body_size x;" + "server {}", "2: client_max_body_size x: x is not a size"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_line(tmp_path, text: str, expected: str) -> None:
    path = tmp_path / "nginx.conf"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        import_nginx(path)
    assert str(caught.value) == f"{path}:{expected}; nginx -t says more"


def test_the_command(tmp_path) -> None:
    path = tmp_path / "nginx.conf"
    path.write_text(BACKEND + server("location / { proxy_pass http://up; gzip on; }") + "sendfile on;")
    done = CliRunner().invoke(cli, ["import-nginx", str(path)])
    assert done.exit_code == 0
    assert parse_config(done.stdout, "import").routes
    assert f"{path}:3: lost: gzip on: " in done.stderr and "sendfile" not in done.stderr
    assert "sendfile" in CliRunner().invoke(cli, ["import-nginx", str(path), "--all"]).stderr
    assert CliRunner().invoke(cli, ["import-nginx", str(path), "--strict"]).exit_code == 2
    target = tmp_path / "l7.yaml"
    done = CliRunner().invoke(cli, ["import-nginx", str(path), "--json", "-o", str(target)])
    answer = json.loads(done.stdout)
    assert answer["ok"] and answer["config"] is None and parse_config(target.read_text(), "import").pools
    assert {remark["kind"] for remark in answer["remarks"]} == {"lost", "differs"}


def test_paths_of_regular_expressions_and_rewrites(read) -> None:
    done = read(
        BACKEND + server(r"location ~ ^/(?<a>x+)/ { rewrite ^/x/(.*) /$1 break; proxy_pass http://up; }")
    )
    (route,) = done.config.routes
    assert route.match.paths == (PathMatch(PathKind.REGEX, "^/(?P<a>x+)/"),)
    assert route.rewrite == Rewrite(pattern="^/x/(.*)", replacement=r"/\1")
