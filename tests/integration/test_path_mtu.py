"""Path-MTU discovery through the balancer: a link of 1400 bytes on either side, and bulk in both
directions."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.integration.gateway import VIP4, VIP6, balancing, serving
from tests.integration.test_modes import ITSELF, SHAPES, config
from tests.support import servers
from tests.support.lab import Lab, unique_prefix

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
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(unique_prefix("test"), 1, shape=SHAPES[mode], small_mtu=side))
        stack.enter_context(serving(lab, http=(80, 8080), udp=(7,)))
        for host in lab.backends if mode in ITSELF else ():
            words = ["--vip", VIP4, "--vip", VIP6, "--forward", mode, "--apply"]
            if mode != "dsr":
                servers.start_decapsulator(host).wait_ready()
                words += ["--tunnel-device", servers.DECAPSULATOR_DEVICE]
            servers.real_server(host, *words)
        yield mode, lab


@pytest.mark.parametrize("datapath", ["offload", "rewrite"])
def test_bulk_passes_in_both_directions(ready, datapath):
    mode, lab = ready
    body = lab.directory / "body"
    body.write_bytes(b"x" * SIZE)
    # What earlier tests have taught the hosts about paths would hide what is tested.
    for host in lab.hosts.values():
        host.run(["ip", "route", "flush", "cache"])
        host.run(["ip", "-6", "route", "flush", "cache"])
    with balancing(lab, config(mode, datapath, backends=1)) as running:
        for vip in (f"http://{VIP4}", f"http://[{VIP6}]"):
            down = lab.client.run(["curl", "-sS", "-m", "10", f"{vip}/bytes/{SIZE}"], timeout=20)
            assert len(down.stdout) == SIZE, f"{vip} down"
            up = ["curl", "-sS", "-m", "10", "--data-binary", f"@{body}", "-H", "Expect:", f"{vip}/echo"]
            assert len(lab.client.run(up, timeout=20).stdout) == SIZE, f"{vip} up"
        if mode == "nat":
            icmp = running.status()["icmp"]
            assert icmp["to_backend"] + icmp["to_client"] > 0
