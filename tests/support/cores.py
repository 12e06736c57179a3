"""Both implementations of the packet path, for tests that run over each of them.

@both_cores
def test_something(core: Core) -> None:
    balancer = core.balancer.Balancer(capacity=16, key=KEY)
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest

from l4lb.dataplane.table import Table

KEY = bytes(range(16))
"""The hash key of tests: that of the official SipHash vectors."""

_PACKAGES = {"reference": "l4lb.dataplane.reference", "native": "l4lb.dataplane"}


@dataclass(frozen=True)
class Core:
    """One of the two; a missing native build fails the test that asks for it, it is never skipped."""

    name: str

    def __str__(self) -> str:
        return self.name

    @property
    def balancer(self) -> Any:
        return self._load("balancer")

    @property
    def hashing(self) -> Any:
        return self._load("hashing")

    def compile(self, table: Table, previous: Any = None) -> Any:
        """What is published to several balancers that shall share the turns of their services."""
        return self._load("nativetable").NativeTable(table, previous) if self is NATIVE else table

    def _load(self, module: str) -> Any:
        try:
            return import_module(f"{_PACKAGES[self.name]}.{module}")
        except ImportError as error:
            pytest.fail(f"the {self.name} core does not load ({error}): run ./scripts/setup")


REFERENCE = Core("reference")
NATIVE = Core("native")

both_cores = pytest.mark.parametrize("core", [REFERENCE, NATIVE], ids=str)
