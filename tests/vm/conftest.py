"""The lab of virtual machines, as `./scripts/vm-lab up` leaves it."""

from __future__ import annotations

import pytest

from tests.support.vm import host, machines
from tests.support.vm.lab import VmLab


@pytest.fixture(scope="session")
def lab() -> VmLab:
    if not (host.answers() and machines.came_up()):
        pytest.fail("the lab is not up; ./scripts/vm-lab test brings it up", pytrace=False)
    return VmLab()
