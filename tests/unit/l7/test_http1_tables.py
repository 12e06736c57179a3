"""The tables of HTTP/1: rules, fields, and the page that says them."""

from __future__ import annotations

from pathlib import Path

import pytest

from l7.http1.fields import FIELDS, Field, Trait, field_number
from l7.http1.refusals import Refusal
from l7.http1.rules import RULES, name_of

PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "design" / "http1.md"


def test_every_refusal_has_its_rule():
    numbers = {refusal.name: refusal.value for refusal in Refusal}
    assert numbers.pop("REFUSED_NOT") == 0
    assert numbers.pop("REFUSED_COUNT") == len(RULES) + 1
    assert numbers == {f"REFUSED_{rule.name.upper()}": number for number, rule in enumerate(RULES, start=1)}
    assert name_of(0) is None
    assert {rule.status for rule in RULES} <= {400, 405, 414, 417, 431, 501, 502, 505}


def test_the_page_has_every_rule():
    rows = [f"| `{rule.name}` | {rule.status} | {rule.source} | {rule.text} |" for rule in RULES]
    page = PAGE.read_text().splitlines()
    assert [line for line in page if line.startswith("| `") and line.count(" | ") == 3] == rows


def test_every_field_is_found_in_any_case():
    numbers = {field.name: field.value for field in Field if field.name not in ("FIELD_OTHER", "FIELD_COUNT")}
    for number, (name, _) in enumerate(FIELDS, start=1):
        assert numbers.pop(f"FIELD_{name.decode().upper().replace('-', '_')}") == number
        assert [field_number(each) for each in (name, name.upper(), name.title())] == [number] * 3
    assert numbers == {}


@pytest.mark.parametrize("name", [name for name, _ in FIELDS])
def test_what_only_looks_like_a_field_is_none(name):
    """Names that differ in one character or in length; among them those that only a bit tells apart."""
    others = {
        name[:place] + bytes([c]) + name[place + 1 :] for place in range(len(name)) for c in range(33, 127)
    }
    others |= {name + b"s", name[:-1], b"x" + name, name[1:]}
    known = {other for other in others if field_number(other)}
    assert {other.lower() for other in known} <= {each for each, _ in FIELDS}
    assert field_number(b"") == Field.FIELD_OTHER


def test_framing_is_never_forwarded_and_never_named():
    traits = dict(FIELDS)
    for name in (b"host", b"content-length", b"transfer-encoding"):
        assert traits[name] == Trait.TRAIT_HOP_BY_HOP | Trait.TRAIT_END_TO_END | Trait.TRAIT_NOT_IN_TRAILERS
