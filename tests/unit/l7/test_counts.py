"""Counters of several generations: added up by name, carried over once, shown as Prometheus text."""

from __future__ import annotations

import json
import os
import socket
from ipaddress import ip_address
from pathlib import Path

from l7.counters import BackendColumn, RouteColumn
from l7.model import Backend, BackendAddress, L7Config, Match, Pool, Respond, Route
from l7.process.counts import Ledger, count
from l7.process.exposition import Cost, render_metrics
from l7.process.generation import Generation
from l7.process.inheritance import descriptors_of, dump_generation, load_generation
from l7.process.kit import Belongings
from l7.process.sockets import Sockets
from l7.proxy.layout import Layout

with socket.socket() as _admin:
    BELONGINGS = Belongings(
        Path("lb.yaml"), Path("l7lb.sock"), 0.0, Sockets(), _admin, None, lambda: iter(())
    )

COST = Cost("worker 0", 7, 1.5, 1 << 20)


def make(number: int, *backends: str, route: str = "all") -> tuple[Layout, Ledger]:
    members = tuple(Backend(BackendAddress(ip_address(host), 80)) for host in backends)
    routes = (Route(route, Match(), respond=Respond()),)
    layout = Layout(L7Config((), routes, (Pool("web", members),)), ["bare_lf"])
    return layout, Ledger(number, layout.columns, layout.counters(2))


def add_requests(layout: Layout, ledger: Ledger, backend: str, row: int, amount: int) -> None:
    at = layout.backend("web", backend) + BackendColumn.BACKEND_REQUESTS_TOTAL
    ledger.counters.row(row).increase(at, amount)


def requests(ledgers: list[Ledger], backend: str) -> int:
    return count(ledgers, {}).of("backend_requests_total", ("pool", "web"), ("backend", backend))


def test_generations_with_other_columns_are_added_up_by_name():
    old_layout, old = make(1, "10.0.0.1", "10.0.0.2")
    layout, current = make(2, "10.0.0.3", "10.0.0.1")
    add_requests(old_layout, old, "10.0.0.1:80", 0, 5)
    add_requests(old_layout, old, "10.0.0.2:80", 1, 7)
    add_requests(layout, current, "10.0.0.1:80", 1, 100)
    assert requests([current, old], "10.0.0.1:80") == 105
    assert requests([current, old], "10.0.0.2:80") == 0  # it has no column any more
    old.carry_to(current)
    assert requests([current], "10.0.0.1:80") == 105


def test_gauges_are_not_carried_over():
    layout, old = make(1, "10.0.0.1")
    _, current = make(2, "10.0.0.1")
    at = layout.backend("web", "10.0.0.1:80") + BackendColumn.BACKEND_ACTIVE
    old.counters.row(0).increase(at, 3)
    labels = ("pool", "web"), ("backend", "10.0.0.1:80")
    assert count([current, old], {}).of("backend_active", *labels) == 3
    old.carry_to(current)
    assert count([current], {}).of("backend_active", *labels) == 0


def test_another_program_finds_the_counters_by_their_descriptor():
    layout, ledger = make(3, "10.0.0.1")
    add_requests(layout, ledger, "10.0.0.1:80", 0, 42)
    found = Ledger.load(ledger.dump(), os.dup(ledger.counters.descriptor))
    assert (found.number, requests([found], "10.0.0.1:80")) == (3, 42)
    add_requests(layout, ledger, "10.0.0.1:80", 1, 1)
    assert requests([found], "10.0.0.1:80") == 43


def scrape(ledger: Ledger, spares: dict[tuple[str, str], str]) -> list[str]:
    status = {"version": "1", "generation": 2, "workers": [1, 2], "restarts": 0}
    return render_metrics(count([ledger], spares), [], status, [], [COST]).splitlines()


def test_histograms_are_cumulative_and_times_are_seconds():
    layout, ledger = make(1, "10.0.0.1")
    row, first = ledger.counters.row(0), layout.routes[0]
    row.increase(first + RouteColumn.ROUTE_FIRST_BUCKET, 4)
    row.increase(first + RouteColumn.ROUTE_FIRST_BUCKET + 2, 1)
    row.increase(first + RouteColumn.ROUTE_MICROSECONDS_TOTAL, 2_500_000)
    lines = scrape(ledger, {})
    shown = [line for line in lines if line.startswith("l7lb_route_seconds")]
    assert shown[0] == 'l7lb_route_seconds_bucket{route="all",le="0.001"} 4'
    assert shown[2] == 'l7lb_route_seconds_bucket{route="all",le="0.005"} 5'
    assert shown[-3:] == [
        'l7lb_route_seconds_bucket{route="all",le="+Inf"} 5',
        'l7lb_route_seconds_sum{route="all"} 2.5',
        'l7lb_route_seconds_count{route="all"} 5',
    ]
    assert "# TYPE l7lb_route_seconds histogram" in lines


def test_added_backends_are_shown_by_their_own_names_and_free_places_not_at_all():
    layout, ledger = make(1, "10.0.0.1")
    at = layout.backend("web", "10.0.9.9:80", 0) + BackendColumn.BACKEND_REQUESTS_TOTAL
    ledger.counters.row(0).increase(at, 8)
    lines = scrape(ledger, {("web", "added 1"): "10.0.9.9:80"})
    shown = [line for line in lines if line.startswith("l7lb_backend_requests_total")]
    assert shown == [
        'l7lb_backend_requests_total{pool="web",backend="10.0.0.1:80"} 0',
        'l7lb_backend_requests_total{pool="web",backend="10.0.9.9:80"} 8',
    ]


def test_every_metric_is_described_once_and_its_samples_stand_together():
    _, ledger = make(1, "10.0.0.1", "10.0.0.2")
    lines = scrape(ledger, {})
    described = [line.split()[2] for line in lines if line.startswith("# HELP")]
    assert len(described) == len(set(described))
    assert not [line for line in lines if line.startswith("# HELP") and len(line.split()) < 5]
    current = ""
    for line in lines:
        if line.startswith("# TYPE"):
            current = line.split()[2]
        elif not line.startswith("#"):
            assert line.startswith(current)


def test_what_is_being_carried_is_not_carried_again_by_the_next_program():
    _, ledger = make(1, "10.0.0.1")
    leaving = Generation(ledger, None, BELONGINGS, is_carried=True)
    descriptors = {name: os.dup(number) for name, number in descriptors_of(leaving).items()}
    dumped = json.loads(json.dumps(dump_generation(leaving)))
    assert load_generation(dumped, descriptors, BELONGINGS).is_carried
    del dumped["is_carried"]  # what a program before it says nothing of
    descriptors = {name: os.dup(number) for name, number in descriptors_of(leaving).items()}
    assert not load_generation(dumped, descriptors, BELONGINGS).is_carried
