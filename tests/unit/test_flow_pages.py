"""Pages of flows as the daemon answers them: filters by name, sorting by name, cursors over changes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from l4lb.cli import flowviews
from l4lb.cli.flowviews import count_flows, flow_page
from l4lb.cli.paging import SORTS
from l4lb.control.config import parse_config
from l4lb.control.expand import Surroundings, expand
from l4lb.control.slots import SlotRegistry
from l4lb.dataplane.balancer import Balancer, SharedCounters
from l4lb.errors import ConfigError
from tests.support.cores import KEY
from tests.support.packets import tcp

CONFIG = """
l4:
  services:
    - name: web
      listen: 192.0.2.1:80/tcp
      scheduler: round-robin
      backends: [{web}]
    - name: other
      listen: 192.0.2.2:80/tcp
      backends: [10.2.0.100:80]
"""
WEB = ("10.2.0.9:80", "10.2.0.10:80", "10.2.0.11:80")
NOW = 10_000


class Scene:
    """Two workers with flows; the configuration may change under them."""

    def __init__(self) -> None:
        shared = SharedCounters()
        self.slots = SlotRegistry()
        self.balancers = [Balancer(capacity=256, key=KEY, shared=shared) for _ in range(2)]
        self.workers = [SimpleNamespace(number=n, balancer=b) for n, b in enumerate(self.balancers)]
        self.learned: frozenset[int] = frozenset()
        self.configure(*WEB)
        for n in range(12):
            vip = "192.0.2.2:80" if n % 4 == 3 else "192.0.2.1:80"
            self.balancers[n % 2].decide(tcp(f"198.51.100.{n}:1000", vip), NOW - 100 * n)

    def configure(self, *web: str) -> None:
        config = parse_config(CONFIG.format(web=", ".join(web)), "test.yaml")
        self.slots = self.slots.copy()
        self.slots.assign(config, lambda slot: 1)
        self.table = expand(config, self.slots, Surroundings(KEY))
        for balancer in self.balancers:
            balancer.publish(self.table)

    def rows(self, **query: Any) -> list[dict[str, Any]]:
        return list(flow_page(self, {key: str(value) for key, value in query.items()}).rows)  # type: ignore[arg-type]


@pytest.fixture
def scene(monkeypatch):
    monkeypatch.setattr(flowviews, "now_ms", lambda: NOW)
    return Scene()


def hosts(rows: list[dict[str, Any]]) -> list[int]:
    return [int(row["client"].split(":")[0].rpartition(".")[2]) for row in rows]


def test_by_client_over_all_workers(scene):
    rows = scene.rows()
    assert hosts(rows) == list(range(12))
    assert [row["queue"] for row in rows] == [0, 1] * 6
    assert rows[3]["idle_s"] == 0.3 and rows[3]["expires_s"] == 59.7


def test_every_sort_pages_through_everything_both_ways(scene):
    for sort in SORTS:
        for reverse in ("0", "1"):
            whole = scene.rows(sort=sort, reverse=reverse)
            pages: list[dict[str, Any]] = []
            behind: dict[str, str] = {}
            while page := scene.rows(sort=sort, reverse=reverse, limit=5, **behind):
                pages += page
                behind = {"after": page[-1]["cursor"]}
            assert pages == whole
            assert sorted(hosts(whole)) == list(range(12))
        assert hosts(scene.rows(sort=sort, reverse=1)) == hosts(scene.rows(sort=sort))[::-1]


def test_backends_are_in_the_order_of_their_addresses(scene):
    backends = [row["backend"] for row in scene.rows(sort="backend")]
    assert list(dict.fromkeys(backends)) == [*WEB, "10.2.0.100:80"]
    assert [row["service"] for row in scene.rows(sort="service")] == ["other"] * 3 + ["web"] * 9


def test_the_longest_idle_come_first(scene):
    assert hosts(scene.rows(sort="idle")) == list(range(11, -1, -1))
    assert hosts(scene.rows(sort="expires", limit=3)) == [11, 10, 9]


def test_filters_and_counts(scene):
    assert hosts(scene.rows(service="other")) == [3, 7, 11]
    assert {row["backend"] for row in scene.rows(backend=WEB[0])} == {WEB[0]}
    assert hosts(scene.rows(client="198.51.100.8/29")) == [8, 9, 10, 11]
    assert scene.rows(service="none") == []
    assert count_flows(scene, {"service": "web"}) == 9
    assert count_flows(scene, {"service": "web", "state": "established"}) == 0
    assert flow_page(scene, {"limit": "2", "service": "web"}).matched == 9


def test_a_page_goes_on_though_backends_came_and_went_before_it(scene):
    first = scene.rows(sort="backend", limit=3)
    rest = scene.rows(sort="backend", after=first[-1]["cursor"])
    assert first[-1]["backend"] == WEB[0]
    scene.configure("10.2.0.1:80", "10.2.0.8:80", *WEB[1:])
    again = scene.rows(sort="backend", after=first[-1]["cursor"])
    assert hosts(again) == hosts(rest)


def test_a_flow_that_goes_moves_no_other(scene):
    first = scene.rows(limit=5)
    for balancer in scene.balancers:
        balancer.remove_flows(scene.slots.slot("other", "10.2.0.100:80"), 0, balancer.groups)
    assert hosts(scene.rows(after=first[-1]["cursor"])) == [5, 6, 8, 9, 10]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"sort": "size"}, "cannot sort by size; there are client, listen"),
        ({"colour": "red"}, "unknown filter colour; there are client, service, backend, state, sort"),
        ({"limit": "many"}, "limit 'many'"),
        ({"limit": "10001"}, "up to 10000"),
        ({"state": "asleep"}, "unknown state asleep; there are syn_recv"),
        ({"state": "none"}, "unknown state none"),
        ({"client": "198.51.100"}, "no address or network"),
        ({"after": "abc"}, "--after is no cursor"),
        ({"after": "eyJhIjoxfQ"}, "--after is no cursor"),
        ({"after": "é"}, "--after is no cursor"),
    ],
)
def test_what_makes_no_sense(scene, query, says):
    with pytest.raises(ConfigError, match=says):
        flow_page(scene, query)


def test_a_cursor_belongs_to_its_order(scene):
    cursor = scene.rows(sort="bytes", limit=1)[0]["cursor"]
    with pytest.raises(ConfigError, match="of a page sorted by bytes; sort this one likewise"):
        scene.rows(after=cursor)
    with pytest.raises(ConfigError, match="sorted by bytes"):
        scene.rows(sort="bytes", reverse=1, after=cursor)
    backwards = scene.rows(sort="backend", reverse=1, limit=1)[0]["cursor"]
    with pytest.raises(ConfigError, match="sorted by backend in reverse"):
        scene.rows(sort="backend", after=backwards)


def test_a_count_takes_no_paging(scene):
    with pytest.raises(ConfigError, match="unknown filter limit"):
        count_flows(scene, {"limit": "1"})


def test_the_words_of_the_command_line_are_those_of_the_daemon():
    assert tuple(flowviews.SORTS) == SORTS
