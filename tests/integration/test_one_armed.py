"""A gateway with one leg: client and backends on the same segment, and no redirect leads past it."""

from __future__ import annotations

import pytest

from tests.integration.gateway import VIP4, VIP6, balancing, get, serving, shares
from tests.integration.test_modes import config
from tests.support import servers
from tests.support.lab import Lab, unique_prefix

pytestmark = pytest.mark.root
# Counts what would tell the client of a shorter way; as it leaves, so that nobody has to take notice of it.
TAP = """
table inet tap {
    counter redirects { }
    counter passed { }
    chain out { type filter hook postrouting priority 300; policy accept;
        icmp type redirect counter name redirects
        icmpv6 type nd-redirect counter name redirects
        meta l4proto tcp counter name passed
    }
}
"""


@pytest.mark.parametrize("datapath", ["offload", "rewrite"])
def test_direct_return_works_on_one_segment_and_no_redirect_leaks(datapath):
    with Lab(unique_prefix("test"), shape="one-armed") as lab, serving(lab, http=(80,), udp=(7,)):
        for host in lab.backends:
            servers.real_server(host, "--vip", VIP4, "--vip", VIP6, "--forward", "dsr", "--apply")
        lab.gateway.run(["nft", "-f", "-"], input=TAP)
        with balancing(lab, config("dsr", datapath)):
            for vip in (VIP4, VIP6):
                assert shares([get(lab, vip) for _ in range(6)]) == {"b1": 2, "b2": 2, "b3": 2}
        assert counted(lab, "passed") > 0
        assert counted(lab, "redirects") == 0


def counted(lab: Lab, name: str) -> int:
    shown = lab.gateway.run(["nft", "list", "counter", "inet", "tap", name]).stdout
    return int(shown.split("packets")[1].split()[0])
