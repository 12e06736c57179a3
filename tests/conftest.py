"""What chooses tests: those in virtual machines run only when they are asked for."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vm", action="store_true", help="run tests/vm, too, in the lab that ./scripts/vm-lab brought up"
    )


def pytest_ignore_collect(collection_path, config: pytest.Config) -> bool | None:
    """Without --vm they are no tests of this run: lines of skips would hide the skips that matter."""
    is_vm = collection_path.name == "vm" and collection_path.parent.name == "tests"
    return True if is_vm and not config.getoption("--vm") else None
