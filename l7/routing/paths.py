"""Paths of requests: from the wire to what is matched, and back.

What is matched is decoded, for `/%61pi` is `/api` to every server; what goes on is what was sent, unless a
rewrite made it anew. Decoding comes before dot segments and empty ones are removed, as in nginx: `/a%2f../b`
cannot get past a rule for `/b`.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

_KEPT = "/!$&'()*+,;=:@~-._"
"""What a path may hold as it is: pchar of RFC 3986, section 3.3, and the slash."""


def split_target(target: bytes) -> tuple[str, bytes]:
    """The path for matching and the query of a request's target in origin or asterisk form.

    ValueError where the target begins with something else, or its path leads above the root.
    """
    if target == b"*":
        return "*", b""
    if not target.startswith(b"/"):
        raise ValueError(f"{target!r} is not a path; begin with /")
    path, _, query = target.partition(b"?")
    return normalise_path(path), query


def normalise_path(raw: bytes) -> str:
    """A path decoded as UTF-8 (surrogateescape), without empty and dot segments.

    ValueError where it leads above the root, where RFC 3986, section 5.2.4, would stay there.
    """
    text = (
        unquote(raw.decode("utf-8", "surrogateescape"), errors="surrogateescape")
        if b"%" in raw
        else (raw.decode("utf-8", "surrogateescape"))
    )
    if "//" not in text and "/." not in text:
        return text
    kept: list[str] = []
    segments = text.split("/")[1:]
    for segment in segments:
        if segment == "..":
            if not kept:
                raise ValueError(f"{text!r} leads above the root")
            kept.pop()
        elif segment not in ("", "."):
            kept.append(segment)
    ends_open = segments[-1] in ("", ".", "..") and kept
    return "/" + "/".join(kept) + ("/" if ends_open else "")


def escape_path(path: str) -> bytes:
    """The bytes for the wire of a path as it is matched; nothing in them can end a line or begin a query."""
    return quote(path, safe=_KEPT, errors="surrogateescape").encode("ascii")
