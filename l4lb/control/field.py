"""A value of the configuration with its key and position; what every rule is checked on.

The readers (`text`, `integer`, `flag`, `duration`, `size`, `choice`, `items`, `distinct`, `keys`, `entries`)
return a value of the type that the key has or raise ConfigError where the value stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable
from enum import StrEnum
from typing import TypeVar

from l4lb.control.message import error_at, key_path, nearest, place_of, quoted
from l4lb.control.units import parse_duration, parse_size, show_duration, show_size
from l4lb.control.yamlnode import Mapping, Node, Scalar, Sequence
from l4lb.errors import ConfigError

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)
E = TypeVar("E", bound=StrEnum)

_NOTHING = frozenset({"", "~", "null", "Null", "NULL"})
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,18})")


class Field:
    """The value in the file `source` under a key, or at an index, of `parent`; the root has neither."""

    __slots__ = ("key", "node", "parent", "source")

    def __init__(self, node: Node, source: str, parent: Field | None = None, key: str | int = "") -> None:
        self.node = node
        self.source = source
        self.parent = parent
        self.key = key

    @property
    def path(self) -> str:
        """The keys from the root down to the value, as in `l4.services[0].name`."""
        return self.parent._path_of(self.key) if self.parent else ""

    def _path_of(self, key: str | int) -> str:
        return f"{self.path}[{key}]" if isinstance(key, int) else key_path(self.path, key)

    @property
    def place(self) -> str:
        """Where the value stands: `FILE:LINE:COLUMN: KEY`."""
        return place_of(self.source, self.node.line, self.node.column, self.path)

    def at(self, path: Iterable[str | int]) -> Field:
        """The value under these keys and indexes, or the last on the way there that the file has."""
        field = self
        for key in path:
            node = field._child(key)
            if node is None:
                break
            field = Field(node, self.source, field, key)
        return field

    def _child(self, key: str | int) -> Node | None:
        if isinstance(key, int):
            items = self.node.items if isinstance(self.node, Sequence) else []
            return items[key] if key < len(items) else None
        entries = self.node.entries if isinstance(self.node, Mapping) else []
        return next((value for name, value in entries if name.text == key), None)

    def error(self, reason: str) -> ConfigError:
        """The error to raise for this value; `reason` ends with what to do."""
        return error_at(self.source, self.node.line, self.node.column, self.path, reason)

    def is_nothing(self) -> bool:
        """Whether no value was given, or `null`."""
        return isinstance(self.node, Scalar) and self.node.plain and self.node.text in _NOTHING

    def is_mapping(self) -> bool:
        """Whether the value is a mapping."""
        return isinstance(self.node, Mapping)

    def text(self, what: str = "text") -> str:
        """The value as text; `what` names what is wanted."""
        return self._scalar(what).text

    def parse(self, parser: Callable[[str], T], what: str) -> T:
        """The value as `parser` reads it; its ValueError is the reason."""
        text = self.text(what)
        try:
            return parser(text)
        except ValueError as error:
            raise self.error(str(error)) from None

    def integer(self, low: int, high: int, what: str = "") -> int:
        """A whole decimal number from `low` to `high`."""
        what = what or f"a whole number from {low} to {high}"
        node = self._scalar(what)
        if not node.plain:
            raise self.error(f"must be {what}, not text; remove the quotes")
        if not _WHOLE.fullmatch(node.text) or not low <= int(node.text) <= high:
            raise self.error(f"must be {what}, not {quoted(node.text)}")
        return int(node.text)

    def flag(self, what: str = "true or false") -> bool:
        """Yes or no; `what` names what is wanted where more than these two are known."""
        node = self._scalar(what)
        if not node.plain:
            raise self.error(f"must be {what}, not text; remove the quotes")
        if node.text not in ("true", "false"):
            raise self.error(f"must be {what}, not {quoted(node.text)}")
        return node.text == "true"

    def duration(self, low_s: float, high_s: float) -> float:
        """Seconds, from `low_s` to `high_s`."""
        what = f"a duration from {show_duration(low_s)} to {show_duration(high_s)}"
        seconds = self.parse(parse_duration, what)
        if not low_s <= seconds <= high_s:
            raise self.error(f"must be {what}, not {show_duration(seconds)}")
        return seconds

    def size(self, low: int, high: int, what: str = "") -> int:
        """Bytes, from `low` to `high`."""
        what = what or f"a size from {show_size(low)} to {show_size(high)}"
        size = self.parse(parse_size, what)
        if not low <= size <= high:
            raise self.error(f"must be {what}, not {show_size(size)}")
        return size

    def choice(self, kind: type[E]) -> E:
        """One of the values of an enumeration."""
        known = [member.value for member in kind]
        text = self.text(f"one of {', '.join(known)}")
        if text not in known:
            raise self.error(f"unknown value {quoted(text)}; {nearest(text, known)}")
        return kind(text)

    def items(self, what: str) -> list[Field]:
        """The items of a list; `what` names them in the plural."""
        if not isinstance(self.node, Sequence):
            raise self._wrong_type(f"a list of {what}")
        return [Field(item, self.source, self, i) for i, item in enumerate(self.node.items)]

    def items_or_one(self, what: str) -> list[Field]:
        """The items of a list, or the single value itself."""
        return self.items(what) if isinstance(self.node, Sequence) else [self]

    def distinct(self, parser: Callable[[str], H], what: str, plural: str) -> list[tuple[H, Field]]:
        """The items of a list as `parser` reads them, at least one and none twice; or the one value.

        `what` names one of them, `plural` all.
        """
        found: dict[H, Field] = {}
        for item in self.items_or_one(plural):
            value = item.parse(parser, what)
            if value in found:
                raise item.error(f"{value} stands here twice; remove one of the two")
            found[value] = item
        if not found:
            raise self.error(f"the list is empty; add {what}, or remove the key")
        return list(found.items())

    def keys(self, known: tuple[str, ...], required: tuple[str, ...]) -> dict[str, Field]:
        """The values of a mapping by key. Unknown, doubled and missing keys are errors."""
        if not isinstance(self.node, Mapping):
            raise self._wrong_type(f"a mapping with the keys {', '.join(known)}")
        found: dict[str, Field] = {}
        for key, value in self.node.entries:
            if key.text not in known:
                raise self._key_error(key, key.text, f"unknown key; {nearest(key.text, known)}")
            if key.text in found:
                raise self._key_error(key, key.text, "the key stands here twice; remove one of the two")
            found[key.text] = Field(value, self.source, self, key.text)
        for name in required:
            if name not in found:
                raise self._key_error(self.node, name, "missing; add this key, it is required")
        return found

    def entries(self, what: str) -> list[tuple[str, Field]]:
        """The keys and values of a mapping whose keys are the operator's own; `what` names them in the
        plural."""
        if not isinstance(self.node, Mapping):
            raise self._wrong_type(f"a mapping of {what}")
        found: dict[str, Field] = {}
        for key, value in self.node.entries:
            if key.text in found:
                raise self._key_error(key, key.text, "the key stands here twice; remove one of the two")
            found[key.text] = Field(value, self.source, self, key.text)
        return list(found.items())

    def _key_error(self, at: Node, key: str, reason: str) -> ConfigError:
        return error_at(self.source, at.line, at.column, self._path_of(key), reason)

    def _scalar(self, what: str) -> Scalar:
        if not isinstance(self.node, Scalar) or self.is_nothing():
            raise self._wrong_type(what)
        return self.node

    def _wrong_type(self, what: str) -> ConfigError:
        node = self.node
        if self.is_nothing():
            return self.error(f"has no value; give it {what}, or remove it")
        if isinstance(node, Scalar):
            return self.error(f"must be {what}, not {quoted(node.text)}")
        if isinstance(node, Mapping):
            return self.error(f"must be {what}, not a mapping")
        if len(node.items) == 1 and isinstance(node.items[0], Scalar) and ":" in node.items[0].text:
            return self.error(f"must be {what}, not a list; put quotes around an address in brackets")
        return self.error(f"must be {what}, not a list")
