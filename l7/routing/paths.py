"""Paths of requests: from the wire to what is matched, and back.

What is matched is decoded, for `/%61pi` is `/api` to every server; what goes on is what was sent, unless a
rewrite made it anew.
"""

from __future__ import annotations

from urllib.parse import quote

from l7.http1.paths import normalise_path

_KEPT = "/!$&'()*+,;=:@~-._"
"""What a path may hold as it is: pchar of RFC 3986, section 3.3, and the slash."""


def split_target(target: bytes) -> tuple[str, bytes]:
    """The path for matching and the query of a request's target in origin or asterisk form.

    ValueError where the proxy would refuse it.
    """
    if target == b"*":
        return "*", b""
    if not target.startswith(b"/"):
        raise ValueError(f"{target!r} is not a path; begin with /")
    path, _, query = target.partition(b"?")
    decoded = normalise_path(path)
    if decoded is None:
        raise ValueError(f"{path!r} is not a path; it has a wrong escape, or leads above the root")
    return decoded.decode("utf-8", "surrogateescape"), query


def escape_path(path: str) -> bytes:
    """The bytes for the wire of a path as it is matched; nothing in them can end a line or begin a query."""
    return quote(path, safe=_KEPT, errors="surrogateescape").encode("ascii")
