"""All scenarios by name."""

from __future__ import annotations

from tests.support.scenarios import (
    drain,
    dsr,
    failover,
    ipv6,
    l7,
    masquerade,
    nat,
    offload,
    reload,
    tunnel,
    two_tier,
)
from tests.support.scenarios.scenario import Scenario

SCENARIOS: dict[str, Scenario] = {
    module.SCENARIO.name: module.SCENARIO
    for module in (nat, dsr, masquerade, tunnel, ipv6, offload, failover, drain, reload, l7, two_tier)
}
