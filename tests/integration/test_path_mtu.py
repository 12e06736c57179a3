"""Path-MTU discovery through the balancer: a link of 1400 bytes on either side, and bulk in both
directions."""

from __future__ import annotations

import pytest

from tests.integration.gateway import VIP4, VIP6, balancing
from tests.integration.test_modes import config, prepared

pytestmark = pytest.mark.root
SIZE = 2_000_000
# Direct return needs its backends on a network of the gateway, masquerade the segment of its lab.
CELLS = [
    ("nat", "client"),
    ("nat", "backends"),
    ("masquerade", "client"),
    ("dsr", "client"),
    ("ipip", "client"),
    ("ipip", "backends"),
    ("gue", "backends"),
]


@pytest.fixture(scope="module", params=CELLS, ids="-".join)
def ready(request, no_lab_because):
    mode, side = request.param
    with prepared(mode, 1, side) as lab:
        yield mode, side, lab


@pytest.mark.parametrize("datapath", ["offload", "rewrite"])
def test_bulk_passes_in_both_directions(ready, datapath):
    mode, side, lab = ready
    body = lab.directory / "body"
    body.write_bytes(b"x" * SIZE)
    # What earlier tests have taught the hosts about paths would hide what is tested.
    for host in lab.hosts.values():
        host.run(["ip", "route", "flush", "cache"])
        host.run(["ip", "-6", "route", "flush", "cache"])

    def down(vip: str) -> int:
        page = lab.client.run(["curl", "-sS", "-m", "10", f"{vip}/bytes/{SIZE}"], timeout=20)
        return len(page.stdout)

    def up(vip: str) -> int:
        words = ["curl", "-sS", "-m", "10", "--data-binary", f"@{body}", "-H", "Expect:", f"{vip}/echo"]
        return len(lab.client.run(words, timeout=20).stdout)

    # A host that has learned a path's MTU asks others for smaller segments: first from where the link is far.
    ways = (up, down) if side == "backends" else (down, up)
    with balancing(lab, config(mode, datapath, backends=1)) as running:
        for vip in (f"http://{VIP4}", f"http://[{VIP6}]"):
            for way in ways:
                assert way(vip) == SIZE, f"{vip} {way.__name__}"
        if mode == "nat":
            icmp = running.status()["icmp"]
            assert icmp["to_backend"] + icmp["to_client"] > 0
