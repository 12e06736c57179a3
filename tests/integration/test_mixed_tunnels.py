"""Tunnels that carry the other family: IPv6 inside IPv4, and the reverse."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.gateway import VIP4, VIP6, balancing, get, shares
from tests.integration.test_modes import EVENLY, config, prepared
from tests.support.lab import Lab

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", params=["ipip", "gue"])
def ready(request, no_lab_because) -> Iterator[tuple[str, Lab]]:
    with prepared(request.param) as lab:
        yield request.param, lab


@pytest.mark.parametrize("datapath", ["offload", "reference"])
def test_each_family_reaches_backends_of_the_other(ready, datapath):
    mode, lab = ready
    with balancing(lab, config(mode, datapath, mixed=True)):
        for vip in (VIP4, VIP6):
            assert shares([get(lab, vip) for _ in range(6)]) == EVENLY, vip
