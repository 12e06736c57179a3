"""Who may import whom (ARCHITECTURE.md). Read from the source, so that a rule holds before it is run."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
PLAIN = {"l4lb.model", "l4lb.errors"}

# What a layer may import of ours, and which modules of the outside world it must not touch.
L4LB = {
    "l4lb.dataplane": {"l4lb.dataplane", *PLAIN},
    "l4lb.control": {"l4lb.control", "l4lb.dataplane", *PLAIN},
    "l4lb.net": {"l4lb.net", "l4lb.control", "l4lb.dataplane", *PLAIN},
    "l4lb.console": {"l4lb.console", "l4lb.net.client", "l4lb.errors"},
    "l4lb.cli": {"l4lb"},
}
HASHING = {"l4lb.dataplane.hashing", "l4lb.dataplane.reference.hashing"}
L7 = {
    "l7.balancing": {"l7.balancing", "l7.request", "l7.model", *HASHING, "l4lb.control.health", *PLAIN},
    "l7.routing": {"l7.routing", "l7.request", "l7.http1.paths", "l7.model", "l4lb.control.message", *PLAIN},
    "l7.wire": {"l7.wire", "l7.model", *PLAIN},
    "l7.tls": {"l7.tls", "l7.model", "l4lb.control.message", *PLAIN},
    "l7.config": {"l7.config", "l7.routing", "l7.model", "l4lb.control", "l4lb.net.files", *PLAIN},
    "l7.nginx": {"l7.nginx", "l7.config", "l7.routing", "l7.model", "l4lb.control", *PLAIN},
    "l7.http1": {"l7.http1"},
    "l7.counters": {"l7.counters"},
    "l7.proxy": {
        *("l7.proxy", "l7.http1", "l7.routing", "l7.balancing", "l7.wire", "l7.tls", "l7.counters"),
        *("l7.request", "l7.model", "l4lb.control.message", *PLAIN),
    },
    "l7.process": {"l7", "l4lb"},
    "l7.cli": {"l7", "l4lb"},
}
ALLOWED = L4LB | L7
TOPMOST = {"l4lb.cli", "l7.cli"}
"""Nobody imports these."""
PACKAGES = ("l4lb", "l7")
IMPURE = {
    *("time", "datetime", "random", "secrets", "socket", "logging", "os", "pathlib", "subprocess"),
    *("threading", "asyncio", "select", "pyroute2", "netfilterqueue", "aiohttp", "click", "rich"),
}
HANDED_IN = {"l7.balancing": {"random"}}
"""Whose type is imported, but which is made outside."""
PURE = ("l4lb.dataplane", "l4lb.control", "l7.balancing", "l7.routing", "l7.wire", "l7.http1")


def imports(path: Path) -> set[str]:
    """Every module of ours and of others that a file imports, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            is_root = module in PACKAGES
            found.update([f"{module}.{alias.name}" for alias in node.names] if is_root else [module])
    return found


def files(layer: str) -> list[Path]:
    return sorted((REPOSITORY / layer.replace(".", "/")).rglob("*.py"))


def is_within(module: str, layers: Iterable[str]) -> bool:
    return any(module == layer or module.startswith(f"{layer}.") for layer in layers)


def packages(root: str) -> set[str]:
    inside = (REPOSITORY / root).iterdir()
    return {f"{root}.{path.name}" for path in inside if path.is_dir() and path.name != "__pycache__"}


@pytest.mark.parametrize("layer", sorted(ALLOWED))
def test_arrows_go_downward_only(layer):
    for path in files(layer):
        for module in imports(path):
            if module.split(".")[0] in PACKAGES:
                assert is_within(module, ALLOWED[layer]), f"{path.relative_to(REPOSITORY)} imports {module}"
                own = is_within(module, [layer])
                assert own or not is_within(module, TOPMOST), f"{path.relative_to(REPOSITORY)}: {module}"


@pytest.mark.parametrize("layer", PURE)
def test_pure_layers_import_no_clock_socket_logger_or_chance(layer):
    for path in files(layer):
        touched = {module.split(".")[0] for module in imports(path)} & IMPURE - HANDED_IN.get(layer, set())
        assert not touched, f"{path.relative_to(REPOSITORY)} imports {', '.join(sorted(touched))}"


@pytest.mark.parametrize("name", ["l4lb/model.py", "l4lb/errors.py"])
def test_plain_data_imports_nothing_of_ours(name):
    assert not {module for module in imports(REPOSITORY / name) if module.split(".")[0] in PACKAGES}


@pytest.mark.parametrize("root", PACKAGES)
def test_every_package_is_in_a_layer_and_has_modules(root):
    assert packages(root) == {layer for layer in ALLOWED if layer.startswith(f"{root}.") and files(layer)}
