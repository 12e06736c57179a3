"""YAML text to a tree of nodes that know where they stand. The one file that knows PyYAML.

A configuration needs less of YAML than YAML offers, and what it does not need is refused:

* one document; no anchors, aliases or tags (an alias can make a few lines expand without bound);
* keys are scalars, nothing is nested deeper than `MAX_DEPTH`;
* no control characters but tab and line breaks.

Scalars stay text. Each key knows its type, so YAML 1.1's guesses (`on` a boolean, `1:30` ninety
seconds, `010` eight) never happen.

The tree is built from the parser's events in a loop, not by `yaml.compose`: that recurses as deep as
the text nests, hides tags and aliases behind its result, and takes six times as long.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from l4lb.control.message import error_at, key_path
from l4lb.errors import ConfigError

MAX_DEPTH = 32
"""Lists and mappings within one another."""


@dataclass(slots=True)
class Scalar:
    """Text, and where it begins (both from 1). `plain` is false where it was quoted or a block."""

    text: str
    plain: bool
    line: int
    column: int


@dataclass(slots=True)
class Sequence:
    """A list."""

    items: list[Node]
    line: int
    column: int


@dataclass(slots=True)
class Mapping:
    """Keys and values in the order of the text; a key may stand there twice."""

    entries: list[tuple[Scalar, Node]]
    line: int
    column: int


Node = Scalar | Sequence | Mapping

_REFUSED = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_BRACKETED_ADDRESS = re.compile(r"[-:,\[]\s*\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\]")
_LINE_END = re.compile(r"\r\n|\r|\n")


def parse_yaml(text: str, source: str) -> Node | None:
    """The root node of `text`, or None where the text holds nothing but comments.

    Raises ConfigError with the position in `source`.
    """
    text = text.removeprefix("\ufeff")
    if refused := _REFUSED.search(text):
        before = _LINE_END.split(text[: refused.start()])
        raise error_at(
            source,
            len(before),
            len(before[-1]) + 1,
            "",
            f"character U+{ord(refused[0]):04X} is not text; remove it and save the file as UTF-8",
        )
    builder = _Builder(source, _end(text))
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            builder.add(event)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text, source, builder.path()) from None
    except yaml.YAMLError as error:
        raise error_at(source, 1, 1, "", f"is not YAML: {error}") from None
    return builder.root


class _Builder:
    """Puts nodes together; `_open` holds the collections that have not ended, outermost first."""

    def __init__(self, source: str, end: tuple[int, int]) -> None:
        self.root: Node | None = None
        self._source = source
        self._end = end
        self._open: list[Sequence | Mapping] = []
        self._keys: list[Scalar | None] = []
        """For each open mapping the key whose value comes next; None in a list or before a key."""
        self._documents = 0

    def path(self) -> str:
        """The key of the node that comes next."""
        path = ""
        for collection, key in zip(self._open, self._keys, strict=True):
            if isinstance(collection, Sequence):
                path = f"{path}[{len(collection.items)}]"
            elif key is not None:
                path = key_path(path, key.text)
        return path

    def add(self, event: Event) -> None:
        if isinstance(event, ScalarEvent):  # four of five are
            if event.anchor is not None or event.tag is not None:
                raise self._extra(event)
            line, column = self._position(event)
            self._place(Scalar(event.value, not event.style, line, column))
        elif isinstance(event, SequenceStartEvent | MappingStartEvent):
            if event.anchor is not None or event.tag is not None:
                raise self._extra(event)
            if len(self._open) == MAX_DEPTH:
                raise self._error(event, f"nested deeper than {MAX_DEPTH} levels; check the brackets")
            kind = Sequence if isinstance(event, SequenceStartEvent) else Mapping
            if self._awaits_key():
                raise self._error(event, "a key must be a word, not a list or mapping; check the brackets")
            self._open.append(kind([], *self._position(event)))
            self._keys.append(None)
        elif isinstance(event, SequenceEndEvent | MappingEndEvent):
            self._keys.pop()
            self._place(self._open.pop())
        elif isinstance(event, AliasEvent):
            raise self._error(event, "anchors and aliases are not used here; write the value out")
        elif isinstance(event, DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self._error(event, 'a second document begins; remove the "---"')

    def _position(self, event: Event) -> tuple[int, int]:
        mark = event.start_mark
        if mark is None:
            return 1, 1
        here = mark.line + 1, mark.column + 1
        return here if here[0] < self._end[0] else min(here, self._end)

    def _awaits_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1], Mapping) and self._keys[-1] is None

    def _place(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        if isinstance(parent, Sequence):
            parent.items.append(node)
        elif (key := self._keys[-1]) is not None:
            parent.entries.append((key, node))
            self._keys[-1] = None
        elif isinstance(node, Scalar):
            self._keys[-1] = node

    def _extra(self, event: ScalarEvent | SequenceStartEvent | MappingStartEvent) -> ConfigError:
        if event.anchor is not None:
            return self._error(event, "anchors and aliases are not used here; write the value out")
        return self._error(event, 'tags are not used here; remove the "!" and what belongs to it')

    def _error(self, event: Event, reason: str) -> ConfigError:
        return error_at(self._source, *self._position(event), self.path(), reason)


def _end(text: str) -> tuple[int, int]:
    """The position behind the last character; libyaml counts a line break after the last line."""
    breaks = list(_LINE_END.finditer(text))
    return len(breaks) + 1, len(text) - (breaks[-1].end() if breaks else 0) + 1


def _syntax_error(error: yaml.MarkedYAMLError, text: str, source: str, path: str) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    line, column = min((mark.line + 1, mark.column + 1), _end(text)) if mark else (1, 1)
    here = _LINE_END.split(text)[line - 1]
    problem = f"is not YAML: {error.problem or error.context}"
    start = error.context_mark
    if error.problem and error.context and start and (start.line, start.column) != (line - 1, column - 1):
        problem += f" {error.context} from {start.line + 1}:{start.column + 1}"
    if "\t" in here[: len(here) - len(here.lstrip())]:
        advice = "indent with spaces instead of tabs"
    elif _BRACKETED_ADDRESS.search(here):
        advice = 'put quotes around an address in brackets, as in "[2001:db8::1]:80"'
    else:
        advice = "check the indentation, colons, quotes and brackets around here"
    return error_at(source, line, column, path, f"{problem}; {advice}")
