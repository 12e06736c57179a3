"""nginx's files as a tree of directives. The one file that knows crossplane.

Includes are put in place of their directive. Files without `http` around them, as snippets are, are taken for
what stands in one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import crossplane

from l4lb.control.message import printable
from l4lb.errors import ConfigError

MAX_SHOWN = 60
"""Characters of a line that a message repeats."""
_MISSING = "No such file or directory"
_CONTEXTS = frozenset({"http", "stream", "events", "mail"})


@dataclass(slots=True, eq=False)
class Directive:
    """`block` None for those without braces. `is_known` is set by whoever has dealt with it."""

    name: str
    args: tuple[str, ...]
    file: str
    line: int
    block: list[Directive] | None = None
    is_known: bool = False

    @property
    def place(self) -> str:
        """`FILE:LINE`, the file without its folder."""
        return f"{Path(self.file).name}:{self.line}"

    @property
    def first(self) -> str:
        """The first argument, empty where there is none."""
        return self.args[0] if self.args else ""

    def __str__(self) -> str:
        return " ".join((self.name, *self.args))


@dataclass(slots=True)
class Source:
    """What stands in `http` and `stream`, and outside of both; `missing` are includes that are not there."""

    main: list[Directive] = field(default_factory=list)
    http: list[Directive] = field(default_factory=list)
    stream: list[Directive] = field(default_factory=list)
    missing: list[Directive] = field(default_factory=list)


def read_source(path: Path) -> Source:
    """The directives of a file and of those that it includes. ConfigError where they cannot be read."""
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file; name the main file of nginx")
    payload = crossplane.parse(str(path), check_ctx=False, check_args=False, strict=False, comments=False)
    for error in payload["errors"]:
        if _MISSING not in error["error"]:
            reason = error["error"].partition(f" in {error['file']}")[0]
            line = error["line"] or 1
            if not reason:  # so crossplane says that a file ends within a directive
                reason = 'unexpected end of file, expecting ";" or "{"'
                line = len(Path(error["file"]).read_text(errors="replace").splitlines())
            raise ConfigError(f"{error['file']}:{line}: {reason}; nginx -t says more")
    files = payload["config"]
    source = Source()
    top = list(_tree(files[0], files, source.missing))
    has_contexts = any(one.name in _CONTEXTS for one in top)
    for one in top:
        if one.name == "http":
            one.is_known = True
            source.http += one.block or []
        elif one.name == "stream":
            one.is_known = True
            source.stream += one.block or []
        elif has_contexts or one.name in _MAIN:
            source.main.append(one)
        else:
            source.http.append(one)
    _wrap_locations(source)
    return source


_MAIN = frozenset({"user", "worker_processes", "pid", "error_log", "events", "load_module", "env", "daemon"})
"""Directives of the outermost context, which a file without `http` may hold, too."""


def _tree(part: dict[str, Any], files: list[dict[str, Any]], missing: list[Directive]) -> Iterator[Directive]:
    yield from _directives(part["parsed"], part["file"], files, missing)


def _directives(
    parsed: list[dict[str, Any]], file: str, files: list[dict[str, Any]], missing: list[Directive]
) -> Iterator[Directive]:
    for one in parsed:
        directive = Directive(one["directive"], tuple(one["args"]), file, one["line"])
        if one["directive"] == "include":
            for index in one.get("includes", ()):
                yield from _tree(files[index], files, missing)
            if not one.get("includes") and not set("*?[") & set(directive.first):
                missing.append(directive)
            continue
        if "block" in one:
            directive.block = list(_directives(one["block"], file, files, missing))
        yield directive


def _wrap_locations(source: Source) -> None:
    """A snippet of locations is put into a server."""
    locations = [one for one in source.http if one.name == "location"]
    if locations:
        source.http = [one for one in source.http if one.name != "location"]
        first = locations[0]
        source.http.append(Directive("server", (), first.file, first.line, locations))


@contextmanager
def reading(directive: Directive) -> Iterator[None]:
    """Makes what is wrong with a line of nginx's an error that names it; nginx would not take it either."""
    try:
        yield
    except (ValueError, IndexError) as error:
        reason = printable(str(error).partition(";")[0])
        where = f"{directive.file}:{directive.line}: {printable(str(directive)[:MAX_SHOWN])}"
        raise ConfigError(f"{where}: {reason}; nginx -t says more") from None


class Scope:
    """A block within others: nginx's inheritance. What stands in a block replaces what stands around it."""

    def __init__(self, directives: list[Directive], parent: Scope | None = None) -> None:
        self.directives = directives
        self.parent = parent

    def here(self, *names: str) -> list[Directive]:
        """The directives of these names in this block, marked as known."""
        found = [one for one in self.directives if one.name in names]
        for one in found:
            one.is_known = True
        return found

    def all(self, name: str) -> list[Directive]:
        """Those of the innermost block that has any; the others are known, too, where they are replaced."""
        found: list[Directive] = []
        scope: Scope | None = self
        while scope is not None:
            these = scope.here(name)
            found = found or these
            scope = scope.parent
        return found

    def one(self, name: str) -> Directive | None:
        """The directive that holds here, or None."""
        found = self.all(name)
        return found[-1] if found else None

    def word(self, name: str, default: str = "") -> str:
        """Its first argument."""
        found = self.one(name)
        return found.first if found else default
