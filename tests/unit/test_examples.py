"""What the manuals show must work: every example file and every YAML block of the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from l4lb.control.config import parse_config
from l4lb.model import Datapath, Forward
from l4lb.net.files import read_config
from l7.config.advice import locate
from l7.config.parse import parse_config as l7_parse_config
from l7.config.parse import parse_placed
from l7.nginx.convert import import_nginx
from l7.routing.router import Router

ROOT = Path(__file__).parents[2]
MANUALS = [ROOT / f"docs/{name}.md" for name in ("configuration", "proxy", "nginx")] + [ROOT / "README.md"]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))

_BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def yaml_blocks() -> Iterator[tuple[str, str]]:
    for manual in MANUALS:
        text = manual.read_text() if manual.exists() else ""
        for block in _BLOCK.finditer(text):
            yield f"{manual.name}:{text[: block.start()].count(chr(10)) + 1}", block[1]


def parses(text: str, place: str) -> bool:
    """Whether a text has a section, and all that it has are right."""
    sections = set(re.findall(r"^(l[47]):", text, re.MULTILINE))
    if "l4" in sections:
        assert parse_config(text, place).services
    if "l7" in sections:
        assert Router(l7_parse_config(text, place).routes)
    return bool(sections)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_parses(path: Path) -> None:
    assert parses(read_config(path), str(path))


@pytest.mark.parametrize(
    "path", [p for p in EXAMPLES if p.name.startswith("l7-")], ids=lambda path: path.name
)
def test_there_is_nothing_to_advise_about_an_example_of_the_proxy(path: Path) -> None:
    assert locate(parse_placed(read_config(path), str(path))) == []


@pytest.mark.parametrize(("place", "text"), [pytest.param(*block, id=block[0]) for block in yaml_blocks()])
def test_a_yaml_block_of_the_manuals_parses(place: str, text: str) -> None:
    assert parses(text, place)


def test_the_modes_all_have_an_example_and_a_manual() -> None:
    configs = [
        parse_config(read_config(path), str(path)) for path in EXAMPLES if not path.name.startswith("l7-")
    ]
    assert {service.forward for config in configs for service in config.services} == set(Forward)
    assert Datapath.OFFLOAD in {config.datapath for config in configs}
    manual = MANUALS[0].read_text()
    assert [mode for mode in Forward if f"**`{mode}`**" not in manual] == []


def test_the_examples_and_blocks_are_found() -> None:
    names = ("dsr", "ipv6", "masquerade", "minimal", "nat", "offload", "tunnel")
    assert {path.stem for path in EXAMPLES} >= {*names, "l7-minimal", "l7-routing", "l7-tls", "two-tier"}
    assert len(list(yaml_blocks())) >= 2


def test_the_manual_shows_what_the_import_of_nginx_makes(tmp_path: Path) -> None:
    manual = (ROOT / "docs/nginx.md").read_text()
    theirs = re.search(r"^```nginx\n(.*?)^```$", manual, re.MULTILINE | re.DOTALL)
    ours = _BLOCK.search(manual)
    assert theirs and ours
    (tmp_path / "nginx.conf").write_text(theirs[1])
    made = import_nginx(tmp_path / "nginx.conf").text
    assert made.endswith(ours[1])
