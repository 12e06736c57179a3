"""Counters in shared memory, and what stands in which column."""

from __future__ import annotations

import os
from ipaddress import ip_address

import pytest

from l7.counters import BackendColumn, Counters, EndColumn, RouteColumn
from l7.model import Backend, BackendAddress, L7Config, Listener, Match, Pool, Route, Share
from l7.proxy.layout import BUCKETS_S, SPARE_BACKENDS, Layout, end_words

CONFIG = L7Config(
    listeners=(Listener("web", ((ip_address("127.0.0.1"), 80),)),),
    routes=(Route("api", Match(), (Share("a"),)), Route('od"d', Match(), (Share("a"),))),
    pools=(Pool("a", (Backend(BackendAddress(ip_address("10.0.0.1"), 80)),)), Pool("b", ())),
)


def column(layout, name):
    return [number for number, column in enumerate(layout.columns) if column.name == name]


def test_names_are_unique_and_say_whose_they_are():
    layout = Layout(CONFIG, ["bad-method"])
    names = [column.name for column in layout.columns]
    assert len(set(names)) == len(names) == len(layout)
    assert names[layout.routes[0] + RouteColumn.ROUTE_REQUESTS_TOTAL] == 'route_requests_total{route="api"}'
    assert (
        names[layout.routes[1] + RouteColumn.ROUTE_4XX] == 'route_answers_total{route="od\\"d",class="4xx"}'
    )
    assert names[layout.ends + EndColumn.END_CLIENT_CLOSED] == 'ends_total{reason="client-closed"}'
    assert names[layout.refusals] == 'refused_total{reason="bad-method"}'
    at = layout.backend("a", "10.0.0.1:80")
    assert (
        names[at + BackendColumn.BACKEND_BYTES_OUT_TOTAL]
        == 'backend_bytes_out_total{pool="a",backend="10.0.0.1:80"}'
    )


def test_every_enumeration_is_gapless_so_that_offsets_are_columns():
    for members in (RouteColumn, BackendColumn, EndColumn):
        values = sorted(member.value for member in members if not member.name.endswith("_COLUMNS"))
        assert values == list(range(len(values)))
    assert RouteColumn.ROUTE_FIRST_BUCKET + len(BUCKETS_S) == RouteColumn.ROUTE_COLUMNS
    assert len(end_words()) == EndColumn.END_COLUMNS


def test_objects_do_not_overlap():
    layout = Layout(CONFIG)
    assert layout.routes[1] == layout.routes[0] + RouteColumn.ROUTE_COLUMNS
    first = layout.backend("b", "10.9.9.9:80", 0)
    assert layout.backend("b", "10.9.9.8:80", 1) == first + BackendColumn.BACKEND_COLUMNS
    last = first + (SPARE_BACKENDS - 1) * BackendColumn.BACKEND_COLUMNS
    assert layout.backend("b", "10.9.9.7:80", 999) == layout.backend("b", "10.9.9.6:80") == last


def test_a_forked_process_counts_into_the_same_memory():
    counters = Counters(2, 9)
    child = os.fork()
    if not child:
        counters.row(1).increase(8, 5)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    counters.row(0)[8] = 2
    assert counters.totals() == [0] * 8 + [7]


@pytest.mark.parametrize("number", [-1, 2])
def test_there_is_no_row_and_no_column_outside(number):
    counters = Counters(2, 2)
    with pytest.raises(IndexError):
        counters.row(number)
    with pytest.raises(IndexError):
        counters.row(0)[number]
    with pytest.raises(IndexError):
        counters.row(0)[number] = 1
    with pytest.raises(IndexError):
        counters.row(0).increase(number)


def test_counts_are_carried_to_another_layout_and_gauges_are_not():
    old = Layout(CONFIG)
    counters = old.counters(2)
    row = counters.row(0)
    row[old.routes[0] + RouteColumn.ROUTE_REQUESTS_TOTAL] = 3
    row[old.routes[0] + RouteColumn.ROUTE_ACTIVE] = 1
    counters.row(1)[old.routes[0] + RouteColumn.ROUTE_REQUESTS_TOTAL] = 4
    new = Layout(CONFIG, ["one", "two"])
    carried = new.counters(1)
    new.carry(carried.row(1), old.snapshot(counters.totals()))
    assert sum(carried.totals()) == carried.totals()[new.routes[0] + RouteColumn.ROUTE_REQUESTS_TOTAL] == 7


def test_what_a_dead_worker_had_open_is_cleared():
    layout = Layout(CONFIG)
    row = layout.counters(1).row(0)
    row[layout.routes[0] + RouteColumn.ROUTE_REQUESTS_TOTAL] = 3
    row[layout.routes[0] + RouteColumn.ROUTE_ACTIVE] = 1
    layout.clear_gauges(row)
    assert [row[number] for number in range(len(row)) if row[number]] == [3]
