"""What a reload would change, in words."""

from __future__ import annotations

import pytest

from l7.config.parse import parse_config
from l7.process.difference import describe_difference

BEFORE = """
l7:
  listeners: [{name: web, listen: "127.0.0.1:80"}, {name: old, listen: "127.0.0.1:81"}]
  routes:
    - {name: a, match: {path: /a}, pool: web}
    - {name: b, match: {path: /b}, respond: 404}
  pools:
    web: {backends: ["10.0.0.1:80", {address: "10.0.0.2:80", weight: 2}, "10.0.0.3:80"]}
"""


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("", "", []),
        ("{name: old, listen", "{name: new, listen", ["listener new is new", "listener old goes"]),
        ('"127.0.0.1:80"', '"127.0.0.1:8080"', ["listener web: endpoints changes"]),
        ("respond: 404", "respond: 403", ["route b: respond changes"]),
        ("weight: 2", "weight: 5", ["pool web: backend 10.0.0.2:80 gets weight 5, had 2"]),
        ("weight: 2", "weight: 2, backup: true", ["pool web: backend 10.0.0.2:80 changes"]),
        (
            '"10.0.0.3:80"',
            '"10.0.0.4:80"',
            [
                "pool web: backend 10.0.0.4:80 is new, weight 1",
                "pool web: backend 10.0.0.3:80 goes",
            ],
        ),
        ("web: {backends", "web: {slow_start: 5s, backends", ["pool web: slow_start_s changes"]),
        ("l7:", "l7:\n  workers: 3", ["l7.workers changes"]),
        ("l7:", "l7:\n  secret: 00112233445566778899aabbccddeeff", ["l7.secret changes"]),
    ],
)
def test_differences_are_named(old, new, lines):
    before, after = parse_config(BEFORE, "a"), parse_config(BEFORE.replace(old, new, 1), "b")
    assert describe_difference(before, after) == lines


def test_the_order_of_routes_matters():
    first = "    - {name: a, match: {path: /a}, pool: web}\n"
    second = "    - {name: b, match: {path: /b}, respond: 404}\n"
    before = parse_config(BEFORE, "a")
    after = parse_config(BEFORE.replace(first + second, second + first), "b")
    assert describe_difference(before, after) == ["the order of the routes changes"]
