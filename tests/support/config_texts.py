"""Text that is nearly a configuration, and what an error about it has to look like."""

from __future__ import annotations

import re
from typing import Any

import yaml
from hypothesis import strategies as st

SOURCE = "lb.yaml"
_ERROR = re.compile(r"lb\.yaml:([1-9][0-9]*):([1-9][0-9]*): [^\n]+: [^\n]+")

# What YAML and this configuration give a meaning to, so that chance finds more than unknown keys.
_TOKENS = st.sampled_from(
    [
        *(
            "l4",
            "services",
            "name",
            "listen",
            "backends",
            "weight",
            "10.0.0.1:80/tcp",
            "[::1]:80",
            "-1",
            "any",
        ),
        *("health: ", "type: ", "exec", "match: ", "(", "[[", "5s", "50%", "passive: ", "true", "backup: "),
        *("forward: ", "dsr", "masquerade: ", "allow: ", "10.0.0.0/8", "2001:db8::/32", "/", "1024-32767"),
        *(
            ": ",
            ":",
            "- ",
            "\n",
            "\r",
            "  ",
            "\t",
            "[",
            "]",
            "{",
            "}",
            ",",
            "? ",
            "#",
            "'",
            '"',
            "|\n",
            ">\n",
        ),
        *("&a", "*a", "!x", "---\n", "...\n", "%YAML 1.1\n", "<<: ", "~", "null"),
        *("\0", "\x85", "\u2028", "\ufeff", "\ud800", "\U0001f600"),
    ]
)
TEXTS = st.one_of(st.text(), st.lists(_TOKENS, max_size=40).map("".join))


def check_said(said: str) -> re.Match[str]:
    """An error or a warning is one printable line: file, line, column, and what is the matter."""
    found = _ERROR.fullmatch(said)
    assert found and said.isprintable(), said
    return found


def check_error(message: str, text: str) -> None:
    """It names a place that the text has, and is not long."""
    found = check_said(message)
    lines = re.split(r"\r\n|\r|\n", text)
    line, column = int(found[1]), int(found[2])
    assert line <= len(lines), message
    assert column <= len(lines[line - 1]) + 1, message
    assert len(message) < 1000, message


@st.composite
def with_other_pieces(draw: st.DrawFn, valid: str) -> str:
    """A valid text with pieces cut out and put in."""
    text = valid
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 12)))
        piece = draw(st.one_of(_TOKENS, st.text(max_size=4), st.just("")))
        text = text[:start] + piece + text[end:]
    return text


@st.composite
def with_another_value(draw: st.DrawFn, valid: str, values: st.SearchStrategy[Any]) -> str:
    """A valid text, written anew, with one of `values` in place of one of its own."""
    tree: Any = yaml.safe_load(valid)
    *path, last = draw(st.sampled_from(_places(tree)[1:]))
    node = tree
    for key in path:
        node = node[key]
    node[last] = draw(values)
    return yaml.safe_dump(tree, default_flow_style=draw(st.booleans()))


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, child in children for place in _places(child, (*path, key)))]
