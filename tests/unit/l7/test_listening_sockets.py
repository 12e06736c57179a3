"""The listening sockets: kept as long as their endpoint is wanted, shared out anew when workers change."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from l4lb.errors import L4lbError
from l7.model import L7Config, Listener
from l7.process.sockets import Sockets
from tests.support.proxy import loopback_address

ADDRESS = ip_address(loopback_address())


def config(*ports: int) -> L7Config:
    return L7Config(tuple(Listener(f"l{port}", ((ADDRESS, port),)) for port in ports), (), ())


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    made = Sockets()
    yield made
    made.close()


def shares(sockets: Sockets, settings: L7Config, workers: int) -> list[list[int]]:
    """The descriptors that each worker serves."""
    return [
        [sock.fileno() for _, sock in sockets.of_worker(settings, number, workers)]
        for number in range(workers)
    ]


@pytest.mark.parametrize("workers", [[1, 3, 2], [3, 1, 4], [2, 2]])
def test_no_socket_is_closed_and_each_is_served_once_however_many_workers_there_are(sockets, workers):
    settings, before = config(8001, 8002), set()
    for count in workers:
        sockets.provide(settings, count)
        found = [descriptor for share in shares(sockets, settings, count) for descriptor in share]
        assert len(found) == len(set(found)) and before <= set(found)
        assert all(shares(sockets, settings, count))
        before = set(found)


def test_only_endpoints_that_went_are_closed(sockets):
    sockets.provide(config(8001, 8002), 2)
    kept = shares(sockets, config(8002), 2)
    assert sockets.retire(config(8002)) == [f"{ADDRESS}:8001"]
    assert shares(sockets, config(8002), 2) == kept
    with socket.socket() as other:
        other.bind((str(ADDRESS), 8001))


def test_what_was_made_in_vain_is_taken_back(sockets):
    sockets.provide(config(8001), 1)
    before = sockets.descriptors()
    with socket.socket() as taken:
        taken.bind((str(ADDRESS), 8003))
        taken.listen()
        with pytest.raises(L4lbError, match="8003: another program listens there"):
            sockets.provide(config(8001, 8002, 8003), 2)
    assert sockets.descriptors() == before
    made = sockets.provide(config(8001, 8002), 2)
    assert len(made) == 3
    sockets.discard(made)
    assert sockets.descriptors() == before


def test_nobody_is_accepted_until_a_worker_listens(sockets):
    sockets.provide(config(8001), 1)
    with socket.socket() as client:
        assert client.connect_ex((str(ADDRESS), 8001)) != 0
    ((_, sock),) = sockets.of_worker(config(8001), 0, 1)
    sock.listen()
    with socket.create_connection((str(ADDRESS), 8001), timeout=5):
        pass


def test_another_program_goes_on_with_the_same_sockets(sockets):
    sockets.provide(config(8001, 8002), 2)
    successor = Sockets()
    successor.adopt({name: os.dup(number) for name, number in sockets.descriptors().items()})
    assert set(successor.descriptors()) == set(sockets.descriptors())
    assert [sock.getsockname() for _, sock in successor.of_worker(config(8002), 0, 1)] == [
        (str(ADDRESS), 8002)
    ] * 2
    successor.close()


@pytest.mark.parametrize(("address", "text"), [("203.0.113.77", "no address of this host")])
def test_an_address_of_another_host_is_said(sockets, address, text):
    listener = Listener("x", ((ip_address(address), 8001),))
    with pytest.raises(L4lbError, match=text):
        sockets.provide(L7Config((listener,), (), ()), 1)
