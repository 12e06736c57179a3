"""Words of nginx as ours: times, sizes, expressions, variables. ValueError with the reason where none is."""

from __future__ import annotations

import re

from l4lb.control.units import show_duration, show_size
from l7.routing.templates import compile_template

_TIME = re.compile(r"([0-9]+)(ms|[smhdwMy]?)")
_SECONDS = {
    "ms": 0.001,
    "": 1,
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
    "M": 2592000,
    "y": 31536000,
}
_SIZE = re.compile(r"([0-9]+)([kKmMgG]?)")
_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_GROUP = re.compile(r"\(\?<([A-Za-z_][A-Za-z0-9_]*)>")
_ESCAPE = re.compile(r"\\([nrt\"'\\])")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_VARIABLE = re.compile(r"\$\{?([A-Za-z0-9_]+)\}?")


def parse_time(text: str) -> float:
    """Seconds of `60`, `1m30s`, `1d`."""
    if not re.fullmatch(rf"(?:{_TIME.pattern})+", text.replace(" ", "")):
        raise ValueError(f"{text} is not a time")
    return sum(int(number) * _SECONDS[unit] for number, unit in _TIME.findall(text))


def duration(text: str) -> str:
    """A time in our words."""
    return show_duration(parse_time(text))


def parse_size(text: str) -> int:
    """Bytes of `8k`, `1m`."""
    if not (found := _SIZE.fullmatch(text)):
        raise ValueError(f"{text} is not a size")
    return int(found[1]) * _BYTES[found[2].lower()]


def size(text: str) -> str:
    """A size in our words."""
    return show_size(parse_size(text))


def expression(text: str) -> str:
    """A regular expression of PCRE as Python's."""
    ours = _GROUP.sub(r"(?P<\1>", text)
    try:
        re.compile(ours)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{text} is not an expression of Python: {error}") from None
    return ours


def unescape(text: str) -> str:
    """What nginx makes of a quoted text."""
    return _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[1]), text)


def template(text: str, fixed: dict[str, str] | None = None, groups: bool = False) -> str:
    """A text with variables, those in `fixed` replaced. ValueError where one is not known here."""
    for name, value in (fixed or {}).items():
        text = re.sub(rf"\$(?:\{{{name}\}}|{name}(?![A-Za-z0-9_]))", value.replace("\\", r"\\"), text)
    try:
        compile_template(text, (lambda number: lambda request, peer: b"") if groups else None)
    except ValueError as error:
        raise ValueError(str(error).partition(";")[0]) from None
    return text


def variables(text: str) -> list[str]:
    """The names of the variables in a text."""
    return _VARIABLE.findall(text)


def replacement(text: str) -> str:
    """A replacement of `rewrite`, `$1` as `\\1`."""
    for name in variables(text):
        if not re.fullmatch("[1-9]", name):
            raise ValueError(f"${name} is not put into paths here")
    return re.sub(r"\$\{?([1-9])\}?", r"\\\1", text.replace("\\", "\\\\"))
