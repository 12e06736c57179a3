"""All scenarios by name."""

from __future__ import annotations

from tests.support.scenarios import nat
from tests.support.scenarios.base import Scenario

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in (nat.SCENARIO,)}
