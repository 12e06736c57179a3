"""The router's tables against the rules read literally (`l7.routing.reasoning`), and rows that pin both to
what nginx does."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7.config.reach import shadowed
from l7.model import Match, PathKind, PathMatch, Route, Share, ValueMatch
from l7.routing.request import PlainRequest
from l7.routing.router import Router
from tests.unit.l7.clients import CLIENT, Client

PREFIX, EXACT, REGEX = PathKind.PREFIX, PathKind.EXACT, PathKind.REGEX


def route(name: str, *hosts: str, path: PathMatch | str | None = None, priority: int = 0, **rest) -> Route:
    paths = () if path is None else (PathMatch(PREFIX, path) if isinstance(path, str) else path,)
    return Route(name, Match(hosts=hosts, paths=paths, **rest), shares=(Share("pool"),), priority=priority)


def get(url: str, method: str = "GET", **headers: str) -> PlainRequest:
    host, slash, path = url.partition("/")
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return PlainRequest(method.encode(), (slash + path).encode(), [(b"Host", host.encode()), *lines])


def taken(routes: list[Route], request: PlainRequest, peer: Client = CLIENT) -> str | None:
    router = Router(routes)
    found = router.route(request, peer)
    reasoning = router.why(request, peer)
    assert reasoning.route is found
    assert len(reasoning.candidates) == len(routes)
    return found.name if found else None


NGINX = [  # the example of nginx's manual for the directive "location", and its text
    route("A", path=PathMatch(EXACT, "/")),
    route("B", path="/"),
    route("C", path="/documents/"),
    route("D", path=PathMatch(PREFIX, "/images/", before_regex=True)),
    route("E", path=PathMatch(REGEX, r"\.(gif|jpg|jpeg)$", ignore_case=True)),
]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        *(("/", "A"), ("/index.html", "B"), ("/documents/document.html", "C"), ("/images/1.gif", "D")),
        *(("/documents/1.jpg", "E"), ("/documents/1.JPG", "E"), ("/%69mages/1.gif", "D")),
        *(("//images/./1.gif", "D"), ("/documents/../x", "B"), ("/x?/documents/", "B")),
    ],
)
def test_paths_are_found_as_in_nginx(path: str, expected: str) -> None:
    assert taken(NGINX, get(f"example.com{path}")) == expected


HOSTS = [
    route("any"),
    route("wild", "*.example.com"),
    route("wilder", "*.a.example.com"),
    route("exact", "www.example.com"),
    route("path", "www.example.com", path="/x/"),
]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        *(("www.example.com/", "exact"), ("WWW.Example.COM:8080/", "exact"), ("www.example.com./", "exact")),
        *(("b.example.com/", "wild"), ("c.b.example.com/", "wild"), ("b.a.example.com/", "wilder")),
        *(("a.example.com/", "wild"), ("example.com/", "any"), (".example.com/", "any"), ("/", "any")),
        *(("[2001:db8::1]:80/", "any"), ("www.example.com/x/y", "path"), ("xexample.com/", "any")),
    ],
)
def test_the_most_exact_host_is_taken(url: str, expected: str) -> None:
    assert taken(HOSTS, get(url)) == expected


def test_a_host_without_a_fitting_path_falls_back() -> None:
    routes = [
        route("api", "api.example.com", path="/api/"),
        route("any", path="/"),
        route("w", "*.example.com"),
    ]
    assert taken(routes, get("api.example.com/other")) == "w"
    assert taken(routes[:2], get("api.example.com/other")) == "any"
    assert taken(routes[:1], get("api.example.com/other")) is None


def test_priority_comes_before_everything() -> None:
    routes = [route("exact", "a.b", path=PathMatch(EXACT, "/x")), route("all", priority=1)]
    assert taken(routes, get("a.b/x")) == "all"
    assert Router(routes).why(get("a.b/x"), CLIENT).candidates[0].text == (
        "fits, but route all has the higher priority 1"
    )


CONDITIONS = {
    "method": ({"methods": (b"POST", b"PUT")}, get("a/", "PUT"), get("a/", "put")),
    "header": (
        {"headers": (ValueMatch("X-Beta", value="1"),)},
        get("a/", x_beta="1"),
        get("a/", x_beta="2"),
    ),
    "header is there": ({"headers": (ValueMatch("X-Beta"),)}, get("a/", x_beta=""), get("a/")),
    "header is not there": (
        {"headers": (ValueMatch("X-Beta", negate=True),)},
        get("a/"),
        get("a/", X_Beta=""),
    ),
    "header is another": (
        {"headers": (ValueMatch("X", value="1", negate=True),)},
        get("a/"),
        get("a/", x="1"),
    ),
    "header matches": (
        {"headers": (ValueMatch("X", pattern="^a+$"),)},
        get("a/", x="aa"),
        get("a/", x="ab"),
    ),
    "cookie": (
        {"cookies": (ValueMatch("c", value="1"),)},
        get("a/", cookie="b=2; c=1"),
        get("a/", cookie="c=2; c=1"),
    ),
    "parameter": (
        {"query": (ValueMatch("q", value="a b&"),)},
        get("a/?p=1&q=a+b%26"),
        get("a/?Q=a+b%26"),
    ),
    "one of several parameters": (
        {"query": (ValueMatch("q", value="2"),)},
        get("a/?q=1&q=2"),
        get("a/?q=12"),
    ),
    "parameter is there": ({"query": (ValueMatch("q"),)}, get("a/?q"), get("a/?qq")),
    "listener": ({"listeners": ("other", CLIENT.listener)}, get("a/"), None),
    "client": ({"clients": (ip_network("192.0.2.0/24"),)}, get("a/"), None),
    "several": (
        {"methods": (b"GET",), "headers": (ValueMatch("X"),)},
        get("a/", x="1"),
        get("a/", "POST", x="1"),
    ),
}


@pytest.mark.parametrize(("match", "yes", "no"), CONDITIONS.values(), ids=CONDITIONS)
def test_a_route_whose_condition_does_not_hold_is_not_there(match, yes, no) -> None:
    routes = [route("special", "a", path=PathMatch(EXACT, "/"), **match), route("any")]
    assert taken(routes, yes) == "special"
    if no is not None:
        assert taken(routes, no) == "any"
    stranger = Client(address="2001:db8::1", listener="nobody's")
    assert taken(routes, yes, stranger) == (
        "any" if "clients" in match or "listeners" in match else "special"
    )


def test_what_is_equal_is_told_apart_by_the_order_of_the_file() -> None:
    routes = [route("first", path="/x"), route("second", path="/x")]
    assert taken(routes, get("a/x")) == "first"
    assert Router(routes).why(get("a/x"), CLIENT).candidates[1].text == (
        "fits, but route first asks for the same and stands earlier in the file"
    )


HOST_NAMES = st.sampled_from(["a", "b.a", "c.b.a", "d"])
TEXTS = st.sampled_from(["/", "/a", "/a/", "/a/b", "/b"])
PATHS = st.one_of(
    st.builds(PathMatch, st.just(EXACT), TEXTS),
    st.builds(PathMatch, st.just(PREFIX), TEXTS, st.booleans()),
    st.builds(PathMatch, st.just(REGEX), st.sampled_from(["b", "^/a", "/$"])),
)
ROUTES = st.builds(
    lambda hosts, paths, methods, listeners, priority: Route(
        "r",
        Match(hosts=tuple(hosts), paths=tuple(paths), methods=tuple(methods), listeners=tuple(listeners)),
        shares=(Share("pool"),),
        priority=priority,
    ),
    st.lists(st.one_of(HOST_NAMES, HOST_NAMES.map(lambda name: f"*.{name}")), max_size=2, unique=True),
    st.lists(PATHS, max_size=2),
    st.lists(st.sampled_from([b"GET", b"PUT"]), max_size=1),
    st.lists(st.sampled_from(["one", "two"]), max_size=1),
    st.integers(0, 1),
)


@given(
    st.lists(ROUTES, max_size=8),
    st.one_of(HOST_NAMES, st.sampled_from(["x.a", "x.b.a", ".a", ""])),
    st.one_of(TEXTS, st.sampled_from(["/a/c", "/x/b", "/ab"])),
    st.sampled_from([b"GET", b"PUT"]),
    st.sampled_from(["one", "three"]),
)
def test_tables_and_rules_agree(routes, host, path, method, listener) -> None:
    router = Router(routes)
    request = PlainRequest(method, path.encode(), [(b"Host", host.encode())])
    peer = Client(listener=listener)
    reasoning = router.why(request, peer)
    assert router.route(request, peer) is reasoning.route
    assert sum(candidate.text.startswith("taken") for candidate in reasoning.candidates) == bool(
        reasoning.route
    )


@given(
    st.lists(ROUTES, min_size=2, max_size=6),
    st.one_of(HOST_NAMES, st.sampled_from(["x.a", "x.b.a", ".a", ""])),
    st.one_of(TEXTS, st.sampled_from(["/a/c", "/x/b", "/ab"])),
    st.sampled_from(["one", "two"]),
)
def test_a_route_that_is_said_to_be_unreachable_is_never_taken(routes, host, path, listener) -> None:
    request = PlainRequest(b"GET", path.encode(), [(b"Host", host.encode())])
    found = Router(routes).route(request, Client(listener=listener))
    for number, other in shadowed(routes, ["one", "two"]):
        assert found is None or found.number != number, (number, other)
