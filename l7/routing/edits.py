"""Edits of headers, compiled for the writer of heads: names that stay behind, and lines to put in."""

from __future__ import annotations

from l7.model import HeaderEdits
from l7.request import Peer, Request
from l7.routing.templates import Template, compile_template


class Edits:
    """`names` are the headers, in lower case, that do not go on: removed, or set anew."""

    __slots__ = ("_constant", "_lines", "names")

    def __init__(self, edits: HeaderEdits) -> None:
        self.names = frozenset(name.lower() for name in (*edits.remove, *(name for name, _ in edits.set)))
        self._lines: list[tuple[bytes, Template]] = [
            (name + b": ", compile_template(value)) for name, value in (*edits.set, *edits.add)
        ]
        constants = [template.constant for _, template in self._lines]
        self._constant: bytes | None = None
        if all(value is not None for value in constants):
            self._constant = b"".join(
                start + template.constant + b"\r\n" for start, template in self._lines if template.constant
            )

    def lines(self, request: Request, peer: Peer) -> bytes:
        """The lines to put in, each ended by CR LF. As in nginx a header with an empty value is left out."""
        if self._constant is not None:
            return self._constant
        lines: list[bytes] = []
        for start, template in self._lines:
            if value := template.render(request, peer):
                lines += (start, value, b"\r\n")
        return b"".join(lines)


def compile_edits(edits: HeaderEdits) -> Edits | None:
    """None where there is nothing to do."""
    return Edits(edits) if edits.set or edits.add or edits.remove else None
