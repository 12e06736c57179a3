"""Who may import whom (ARCHITECTURE.md). Read from the source, so that a rule holds before it is run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent / "l4lb"

# What a layer may import of l4lb, and which modules of the outside world it must not touch.
ALLOWED = {
    "dataplane": {"dataplane", "model", "errors"},
    "control": {"control", "dataplane", "model", "errors"},
    "net": {"net", "control", "dataplane", "model", "errors"},
    "cli": {"cli", "net", "control", "dataplane", "model", "errors", "__version__"},
}
IMPURE = {
    *("time", "datetime", "random", "secrets", "socket", "logging", "os", "pathlib", "subprocess"),
    *("threading", "asyncio", "select", "pyroute2", "netfilterqueue", "aiohttp", "click", "rich"),
}
PURE = ("dataplane", "control")


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found.update([f"{module}.{alias.name}" for alias in node.names] if module == "l4lb" else [module])
    return found


def files(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


@pytest.mark.parametrize("layer", sorted(ALLOWED))
def test_arrows_go_downward_only(layer):
    assert files(layer)
    for path in files(layer):
        for module in imports(path):
            if module.startswith("l4lb."):
                assert module.split(".")[1] in ALLOWED[layer], f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("layer", PURE)
def test_pure_layers_import_no_clock_socket_logger_or_chance(layer):
    for path in files(layer):
        touched = {module.split(".")[0] for module in imports(path)} & IMPURE
        assert not touched, f"{path.relative_to(ROOT)} imports {', '.join(sorted(touched))}"


@pytest.mark.parametrize("name", ["model", "errors"])
def test_plain_data_imports_nothing_of_ours(name):
    assert not {module for module in imports(ROOT / f"{name}.py") if module.startswith("l4lb")}


def test_every_package_is_in_a_layer():
    packages = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert packages == set(ALLOWED)
