"""The hash that the kernel's rules and the cores share."""

from __future__ import annotations

import pytest

from l4lb.dataplane.kernelhash import jhash, kernel_hash
from l4lb.model import Scheduler
from tests.support.cores import KEY, Core, both_cores
from tests.support.packets import packed, tcp
from tests.support.tables import LOOKUP_SIZE, Svc, make_table

BACKENDS = [f"10.2.0.{n}:80" for n in range(11, 21)]
BACKENDS6 = [f"[2001:db8:2::{n}]:80" for n in range(11, 21)]


def test_places_are_those_that_nftables_gives():
    """What `jhash … mod 65537 seed 0x7` of a rule set as the mark on Linux 6.18."""
    seen = {
        ("127.0.0.1", 5000): 58900,
        ("127.0.0.1", 5001): 16088,
        ("127.0.0.1", None): 7801,
        ("2001:db8::1", 5000): 41667,
        ("2001:db8::1", 5004): 42924,
    }
    for (address, port), place in seen.items():
        assert kernel_hash(7, packed(address), port) * 65537 >> 32 == place


def test_nothing_is_hashed_as_the_kernel_does():
    assert jhash(b"", 0) == 0xDEADBEEF


@both_cores
@pytest.mark.parametrize("scheduler", [Scheduler.MAGLEV, Scheduler.SOURCE_HASH, Scheduler.ROUND_ROBIN])
@pytest.mark.parametrize("family", [4, 6])
def test_what_takes_the_hash_takes_the_kernels(core: Core, scheduler: Scheduler, family: int) -> None:
    vip, backends = ("192.0.2.1:80", BACKENDS) if family == 4 else ("[2001:db8::80]:80", BACKENDS6)
    host = "198.51.100.7" if family == 4 else "2001:db8::7"
    table = make_table(Svc("web", [f"{vip}/tcp"], backends, scheduler, kernel_seed=99))
    lookup = memoryview(table.services[0].lookup).cast("H")
    balancer = core.balancer.Balancer(capacity=64, key=KEY)
    balancer.publish(table)
    for port in range(1024, 1064):
        source = f"{host}:{port}" if family == 4 else f"[{host}]:{port}"
        hashed = kernel_hash(99, packed(host), None if scheduler is Scheduler.SOURCE_HASH else port)
        wanted = lookup[hashed * LOOKUP_SIZE >> 32]
        # Picked up in its middle, for there every scheduler takes the hash.
        assert balancer.decide(tcp(source, vip, "A"), 0).slot == wanted
