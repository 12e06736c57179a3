"""A daemon's file that is read again: parsed when its text has changed, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from l4lb.cli.configfile import ConfigFile
from l4lb.errors import ConfigError

WEB = 'l4: {services: [{name: web, listen: "192.0.2.1:80/tcp", backends: [10.0.0.1]}]}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "l4lb.yaml"


def test_a_text_that_has_not_changed_is_not_parsed_again(path: Path) -> None:
    path.write_text(WEB)
    file = ConfigFile(path)
    first = file.load()
    path.write_text(path.read_text())
    assert file.load() is first


def test_a_text_that_has_changed_is_and_one_that_is_wrong_does_not_stay(path: Path) -> None:
    path.write_text(WEB)
    file = ConfigFile(path)
    first = file.load()
    for _ in range(2):
        path.write_text("l4: {}")
        with pytest.raises(ConfigError, match="services"):
            file.load()
    path.write_text(WEB.replace("10.0.0.1", "10.0.0.2"))
    assert str(file.load().services[0].backends[0].address) == "10.0.0.2"
    path.write_text(WEB)
    assert file.load() == first
