"""What a compiled route does: pools by weight, targets, edits, answers, templates."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from l7.model import (
    HeaderEdits,
    Match,
    PathKind,
    PathMatch,
    Redirect,
    Respond,
    Rewrite,
    Route,
    Share,
)
from l7.routing.compiled import CompiledRoute
from l7.routing.paths import escape_path, split_target
from l7.routing.request import PlainRequest
from l7.routing.router import Router
from l7.routing.templates import compile_template
from l7.routing.views import explain, list_routes
from tests.unit.l7.clients import CLIENT, Client


@dataclass
class Tls:
    version: str = "TLSv1.3"
    cipher: str = "TLS_AES_256_GCM_SHA384"
    server_name: str | None = "www.example.com"
    subject: str = "CN=ann\r\nX: y"
    verification: str = "SUCCESS"


def get(target: bytes, *headers: tuple[bytes, bytes]) -> PlainRequest:
    return PlainRequest(b"GET", target, [(b"Host", b"Example.com:8080"), *headers], id=b"a" * 32)


def compiled(*paths: PathMatch, **rest: object) -> CompiledRoute:
    settings = {"shares": (Share("pool"),)} | rest
    return CompiledRoute(Route("r", Match(paths=paths), **settings), 0)  # type: ignore[arg-type]


def prefix(text: str) -> PathMatch:
    return PathMatch(PathKind.PREFIX, text)


def test_a_split_gives_each_pool_its_part() -> None:
    route = compiled(shares=(Share("a", 3), Share("none", 0), Share("b", 1)))
    assert route.pool is None
    chosen = [route.choose(chance << 22) for chance in range(1024)]
    assert (chosen.count("a"), chosen.count("b"), chosen.count("none")) == (768, 256, 0)
    assert (route.choose(0), route.choose(2**32 - 1)) == ("a", "b")


def test_one_pool_needs_no_choice() -> None:
    assert compiled().pool == "pool"


NEW_V2 = Rewrite(prefix="/v2/")


@pytest.mark.parametrize(
    ("rewrite", "target", "expected"),
    [
        (None, b"/%61pi//x?q=%41", b"/%61pi//x?q=%41"),
        (NEW_V2, b"/api/users?q=%41", b"/v2/users?q=%41"),
        (NEW_V2, b"/%61pi//us%20ers", b"/v2/us%20ers"),
        (NEW_V2, b"/api/a%0d%0ab%3Fc%23d%25", b"/v2/a%0D%0Ab%3Fc%23d%25"),
        (NEW_V2, b"/api/%ff", b"/v2/%FF"),
        (NEW_V2, b"/exact", b"/v2/"),
        (Rewrite(pattern="^/api/(.*)$", replacement=r"/\1/new"), b"/api/x?a=1", b"/x/new?a=1"),
        (Rewrite(pattern="^/api/(.*)$", replacement=r"/n?page=\1"), b"/api/x&y?a=1", b"/n?page=x&y&a=1"),
        (Rewrite(pattern="^/api/(.*)$", replacement=r"/n?"), b"/api/x?a=1", b"/n"),
        (Rewrite(pattern="^/api/(.*)$", replacement=r"/n?b=2?"), b"/api/x?a=1", b"/n?b=2"),
        (Rewrite(pattern="^/nothing", replacement="/x"), b"/%61pi/x", b"/%61pi/x"),
        (Rewrite(pattern="^/api", replacement="v3"), b"/api/x", b"/v3/x"),
    ],
)
def test_the_target_for_the_backend(rewrite: Rewrite | None, target: bytes, expected: bytes) -> None:
    route = compiled(prefix("/api/"), PathMatch(PathKind.EXACT, "/exact"), rewrite=rewrite)
    assert route.target(get(target)) == expected


EDITS = HeaderEdits(
    set=((b"Host", "inner"), (b"X-Empty", "$arg_none")),
    add=((b"X-Tag", "a"), (b"X-Tag", "$arg_t-b")),
    remove=(b"Cookie",),
)


def test_edits_name_what_stays_behind_and_give_lines() -> None:
    route = compiled(request_headers=EDITS)
    assert route.request_edits and route.response_edits is None
    assert route.request_edits.names == {b"host", b"x-empty", b"cookie"}
    lines = route.request_edits.lines(get(b"/?t=1"), CLIENT)
    assert lines == b"Host: inner\r\nX-Tag: a\r\nX-Tag: 1-b\r\n"


def test_edits_without_variables_are_always_the_same_bytes() -> None:
    route = compiled(response_headers=HeaderEdits(set=((b"A", "$$1"),), add=((b"B", "2"),)))
    assert route.response_edits
    lines = [route.response_edits.lines(get(b"/"), CLIENT) for _ in range(2)]
    assert lines[0] == b"A: $1\r\nB: 2\r\n" and lines[0] is lines[1]


def test_a_redirect_with_groups_of_the_path_and_edits() -> None:
    route = compiled(
        PathMatch(PathKind.REGEX, "^/old/(.*)$"),
        shares=(),
        redirect=Redirect("https://$host/new/$1$is_args$args", 308),
        response_headers=HeaderEdits(set=((b"Cache-Control", "no-store"),)),
    )
    answer = route.answer(get(b"/old/a%0d%20b?x=1"), CLIENT)
    assert answer
    assert (answer.status, answer.body) == (308, b"")
    assert answer.headers == (
        b"Location: https://example.com/new/a%0D%20b?x=1\r\nCache-Control: no-store\r\n"
    )


def test_fixed_answers() -> None:
    page = Respond(503, b"later", b"text/html")
    route = compiled(shares=(), respond=page)
    answer = route.answer(get(b"/"), CLIENT)
    assert answer and (answer.status, answer.headers) == (503, b"Content-Type: text/html\r\n")
    edits = HeaderEdits(set=((b"content-type", "text/x"),))
    answer = compiled(shares=(), respond=page, response_headers=edits).answer(get(b"/"), CLIENT)
    assert answer and answer.headers == b"content-type: text/x\r\n"
    answer = compiled(shares=(), respond=Respond(204)).answer(get(b"/"), CLIENT)
    assert answer and (answer.status, answer.headers, answer.body) == (204, b"", b"")
    assert compiled().answer(get(b"/"), CLIENT) is None


SECURE = Client(scheme=b"https", tls=Tls(), address="2001:db8::1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("$host", b"example.com"), ("$http_host", b"Example.com:8080"), ("$scheme", b"https")),
        *(("$https", b"on"), ("$remote_addr:$remote_port", b"2001:db8::1:40000")),
        *(("$server_addr:$server_port", b"203.0.113.10:80"), ("$listener", b"web")),
        *(("$request_method $request_uri", b"GET /a%20b/../%41?q=1&r=2"), ("$uri", b"/A")),
        *(("$args$is_args$query_string", b"q=1&r=2?q=1&r=2"), ("$arg_r$arg_s", b"2")),
        *(("$http_x_one", b"1, 2"), ("${cookie_c}x", b"3x"), ("$request_id", b"a" * 32)),
        *(("$proxy_add_x_forwarded_for", b"2001:db8::1"), ("$$host", b"$host"), ("", b"")),
        *(("$ssl_protocol $ssl_cipher", b"TLSv1.3 TLS_AES_256_GCM_SHA384"),),
        *(("$ssl_server_name $ssl_client_verify", b"www.example.com SUCCESS"),),
        ("$ssl_client_s_dn", b"CN=annX: y"),
        ("é", "é".encode()),
    ],
)
def test_variables(text: str, expected: bytes) -> None:
    request = get(
        b"/a%20b/../%41?q=1&r=2",
        (b"X-One", b"1"),
        (b"x-one", b"2"),
        (b"Cookie", b"b=1"),
        (b"Cookie", b"c=3; c=4"),
    )
    assert compile_template(text).render(request, SECURE) == expected


def test_variables_of_tls_are_empty_without_it() -> None:
    assert compile_template("<$ssl_protocol$ssl_client_s_dn$https>").render(get(b"/"), CLIENT) == b"<>"


@given(st.binary(), st.binary())
@example(b"a\r\nSet-Cookie: x", b"/%0d%0aX: y")
def test_no_variable_ends_a_line(value: bytes, path: bytes) -> None:
    try:
        request = get(b"/" + path, (b"X", value), (b"Cookie", b"c=" + value))
    except ValueError:
        return
    text = "$http_x $cookie_c $uri $request_uri $args $arg_a"
    rendered = compile_template(text).render(request, CLIENT)
    assert not any(byte < 0x20 or byte == 0x7F for byte in rendered)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        *((b"/", "/"), (b"/a", "/a"), (b"/a/", "/a/"), (b"//a///b", "/a/b"), (b"/./a/.", "/a/")),
        *((b"/a/../b", "/b"), (b"/a/b/..", "/a/"), (b"/a/..", "/"), (b"/%2e%2E/", None), (b"/..", None)),
        *((b"/a%2fb", "/a/b"), (b"/a%2F..%2fb", "/b"), (b"/%c3%a9", "/é"), (b"/%ff", "/\udcff")),
        *(
            (b"/%zz", None),
            (b"/%00", None),
            (b"/a/../..", None),
            (b"/...", "/..."),
            (b"/.a/..b", "/.a/..b"),
            (b"/%2541", "/%41"),
        ),
    ],
)
def test_paths_are_normalised(raw: bytes, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(ValueError, match="wrong escape, or leads above the root"):
            split_target(raw)
    else:
        assert split_target(raw + b"?/../%") == (expected, b"/../%")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_escaping_a_path_and_reading_it_is_the_same_path(text: str) -> None:
    try:
        path, _ = split_target(quote("/" + text).encode())
    except ValueError:
        return
    assert split_target(escape_path(path)) == (path, b"")


def test_explaining_a_request() -> None:
    routes = [
        Route(
            "api",
            Match(hosts=("example.com",), paths=(prefix("/api/"),)),
            shares=(Share("a", 9), Share("b", 1)),
            rewrite=NEW_V2,
            request_headers=EDITS,
        ),
        Route("rest", Match(), respond=Respond(404)),
    ]
    router = Router(routes)
    found = explain(router, get(b"/api/x"), CLIENT)
    assert found["route"] == "api"
    assert found["to"] == "split a 9, b 1"
    assert found["pools"] == [{"pool": "a", "weight": 9}, {"pool": "b", "weight": 1}]
    assert found["target"] == "/v2/x"
    assert found["request_headers"] == {
        "removed": ["cookie", "x-empty"],
        "added": ["Host: inner", "X-Tag: a", "X-Tag: -b"],
    }
    assert [one["why"] for one in found["candidates"]] == [
        "taken: host example.com, /api/…",
        "fits, but route api names the host more exactly (example.com)",
    ]
    other = explain(router, get(b"/x"), CLIENT)
    assert (other["route"], other["status"], other["body_bytes"]) == ("rest", 404, 0)
    assert explain(Router(routes[:1]), get(b"/x"), CLIENT)["route"] is None
    rows = list_routes(router)
    assert [(row["route"], row["match"], row["to"]) for row in rows] == [
        ("api", "example.com, /api/…", "split a 9, b 1"),
        ("rest", "any host", "answer 404"),
    ]


def test_routes_are_listed_as_they_are_asked() -> None:
    def named(name: str, host: str = "", path: PathMatch | None = None, priority: int = 0) -> Route:
        match = Match(hosts=(host,) if host else (), paths=(path,) if path else ())
        return Route(name, match, respond=Respond(), priority=priority)

    routes = [
        *(named("9"), named("8", "*.com"), named("7", "*.b.com"), named("6", "a.com")),
        *(named("5", "a.com", prefix("/a")), named("4", "a.com", prefix("/ab"))),
        named("3", "a.com", PathMatch(PathKind.REGEX, "x")),
        named("2", "a.com", PathMatch(PathKind.PREFIX, "/", before_regex=True)),
        named("1", "a.com", PathMatch(PathKind.EXACT, "/ab")),
        named("0", priority=1),
    ]
    assert "".join(row["route"] for row in list_routes(Router(routes))) == "0123456789"
