"""Small configuration files, and the error that reading one ends in."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from l4lb.errors import ConfigError


def l4(rest: str) -> str:
    """A file whose `l4` has the flow-style keys `rest` from column 6 on, and an empty list of services."""
    return f"l4: {{{rest}}}\n" if "services:" in rest else f"l4: {{{rest}, services: []}}\n"


def web(listen: str = "203.0.113.10:80/tcp", backends: str = "[10.2.0.11:8080]", more: str = "") -> str:
    """A service; `listen` begins at 4:15, `backends` at 5:17, the lines of `more` at line 6."""
    return f"l4:\n  services:\n    - name: web\n      listen: {listen}\n      backends: {backends}\n{more}"


def second(listen: str = "203.0.113.20:80/tcp", backends: str = "[10.2.0.11:8080]", name: str = "api") -> str:
    """A second service for `web(more=…)`; its name stands at 6:13, `listen` at 7:15, `backends` at 8:17."""
    return f"    - name: {name}\n      listen: {listen}\n      backends: {backends}\n"


def rows(**groups: dict[str, tuple[str, str]]) -> list[object]:
    """The parameters (text, expected error) of a test, from groups of named rows."""
    return [
        pytest.param(text, expected, id=f"{group}: {name}")
        for group, table in groups.items()
        for name, (text, expected) in table.items()
    ]


def error_of(action: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        action()
    assert caught.value.exit_code == 2
    return str(caught.value)
