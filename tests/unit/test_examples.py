"""What the manuals show must work: every example file and every YAML block of the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from l4lb.control.config import parse_config
from l4lb.net.files import read_config

ROOT = Path(__file__).parents[2]
MANUALS = [ROOT / "docs/configuration.md", ROOT / "README.md"]

_BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def yaml_blocks() -> Iterator[tuple[str, str]]:
    for manual in MANUALS:
        text = manual.read_text() if manual.exists() else ""
        for block in _BLOCK.finditer(text):
            yield f"{manual.name}:{text[: block.start()].count(chr(10)) + 1}", block[1]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_parses(path: Path) -> None:
    assert parse_config(read_config(path), str(path)).services


@pytest.mark.parametrize(("place", "text"), [pytest.param(*block, id=block[0]) for block in yaml_blocks()])
def test_a_yaml_block_of_the_manuals_parses(place: str, text: str) -> None:
    assert parse_config(text, place).services


def test_the_examples_and_blocks_are_found() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.yaml")} >= {
        "ipv6.yaml",
        "minimal.yaml",
        "nat.yaml",
    }
    assert len(list(yaml_blocks())) >= 2
