"""Values with variables in them, compiled once: nginx's names, docs/proxy.md lists them.

    $host   ${http_x_tenant}-a   $$5

A template becomes constant bytes, or a list of parts that are joined for each request. What a variable
brings is stripped of control characters, so that no value can end a line, and what comes from the decoded
path is escaped again (in nginx `$uri` in a redirect is a way to inject headers; here it is not).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from l4lb.control.message import nearest, quoted
from l7.request import Peer, Request, TlsInfo
from l7.routing.paths import escape_path

Variable = Callable[[Request, Peer], bytes]

_REFERENCE = re.compile(r"\$(?:\$|\{([A-Za-z0-9_]+)\}|([A-Za-z0-9_]+)|)")
_CONTROLS = bytes([*range(0x20), 0x7F])
_MAX_TEMPLATE = 4096


class Template:
    """A compiled value. `constant` is its bytes where no variable is in it."""

    __slots__ = ("_parts", "constant", "text")

    def __init__(self, text: str, parts: list[bytes | Variable]) -> None:
        self.text = text
        self._parts = tuple(parts)
        fixed = [part for part in parts if isinstance(part, bytes)]
        self.constant = b"".join(fixed) if len(fixed) == len(parts) else None

    def render(self, request: Request, peer: Peer) -> bytes:
        """The value for a request."""
        if self.constant is not None:
            return self.constant
        return b"".join(
            [
                part if isinstance(part, bytes) else part(request, peer).translate(None, _CONTROLS)
                for part in self._parts
            ]
        )


def compile_template(text: str, captures: Callable[[int], Variable] | None = None) -> Template:
    """The template of a text. `captures` makes the variables `$1` to `$9`, where they mean something.

    ValueError for unknown variables, control characters and texts that are too long.
    """
    if len(text) > _MAX_TEMPLATE:
        raise ValueError(f"has {len(text)} characters; use at most {_MAX_TEMPLATE}")
    parts: list[bytes | Variable] = []
    end = 0
    for found in _REFERENCE.finditer(text):
        parts.append(_literal(text[end : found.start()]))
        end = found.end()
        if name := found[1] or found[2]:
            parts.append(_variable(name, captures))
        elif found[0] == "$$":
            parts.append(b"$")
        else:
            raise ValueError(
                f'a "$" at character {found.start() + 1} names no variable; write "$$" for one dollar'
            )
    parts.append(_literal(text[end:]))
    return Template(text, _joined(parts))


def _literal(text: str) -> bytes:
    if any(ord(c) < 0x20 or ord(c) == 0x7F for c in text):
        raise ValueError(f"{quoted(text)} has a control character in it; write it on one line")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{quoted(text)} has half a character in it; write it without \\ud800 to \\udfff"
        ) from None


def _joined(parts: list[bytes | Variable]) -> list[bytes | Variable]:
    """Neighbours that are constant made one."""
    joined: list[bytes | Variable] = []
    for part in parts:
        if isinstance(part, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += part
        elif part != b"":
            joined.append(part)
    return joined


def _variable(name: str, captures: Callable[[int], Variable] | None) -> Variable:
    if name.isdigit():
        if captures is None or not 1 <= int(name) <= 9:
            raise ValueError(
                f"${name} is a group of a regular expression, and there is none here; "
                'write "$$" for one dollar'
            )
        return captures(int(name))
    if (variable := _VARIABLES.get(name)) is not None:
        return variable
    for prefix, family in _FAMILIES.items():
        if name.startswith(prefix) and len(name) > len(prefix):
            return family(name[len(prefix) :])
    raise ValueError(
        f"unknown variable ${name}; {nearest(name, [*_VARIABLES, *(f'{p}NAME' for p in _FAMILIES)])}"
    )


def _header(name: str) -> Variable:
    key = name.lower().replace("_", "-").encode()
    return lambda request, peer: request.header(key) or b""


def _cookie(name: str) -> Variable:
    key = name.encode()
    return lambda request, peer: request.cookie(key) or b""


def _argument(name: str) -> Variable:
    """The first parameter of that name, as sent."""
    start = name.encode() + b"="

    def value(request: Request, peer: Peer) -> bytes:
        for pair in request.query.split(b"&"):
            if pair.startswith(start):
                return pair[len(start) :]
        return b""

    return value


def _host(request: Request, peer: Peer) -> bytes:
    return (request.host or peer.local_address).encode("ascii", "surrogateescape")


def _uri(request: Request, peer: Peer) -> bytes:
    return escape_path(request.path)


def _query(request: Request, peer: Peer) -> bytes:
    return request.query


def _of_tls(read: Callable[[TlsInfo], str | None]) -> Variable:
    """Empty without TLS."""

    def value(request: Request, peer: Peer) -> bytes:
        return (read(peer.tls) or "").encode("utf-8", "surrogateescape") if peer.tls else b""

    return value


_VARIABLES: dict[str, Variable] = {
    "host": _host,
    "http_host": lambda request, peer: request.authority,
    "scheme": lambda request, peer: peer.scheme,
    "https": lambda request, peer: b"on" if peer.scheme == b"https" else b"",
    "remote_addr": lambda request, peer: peer.address.encode(),
    "remote_port": lambda request, peer: b"%d" % peer.port,
    "server_addr": lambda request, peer: peer.local_address.encode(),
    "server_port": lambda request, peer: b"%d" % peer.local_port,
    "listener": lambda request, peer: peer.listener.encode(),
    "request_method": lambda request, peer: request.method,
    "request_uri": lambda request, peer: request.target,
    "uri": _uri,
    "document_uri": _uri,
    "args": _query,
    "query_string": _query,
    "is_args": lambda request, peer: b"?" if request.query else b"",
    "request_id": lambda request, peer: request.id,
    "proxy_add_x_forwarded_for": lambda request, peer: peer.forwarded_for,
    "ssl_protocol": _of_tls(lambda tls: tls.version),
    "ssl_cipher": _of_tls(lambda tls: tls.cipher),
    "ssl_server_name": _of_tls(lambda tls: tls.server_name),
    "ssl_client_s_dn": _of_tls(lambda tls: tls.subject),
    "ssl_client_verify": _of_tls(lambda tls: tls.verification),
}
_FAMILIES: dict[str, Callable[[str], Variable]] = {"http_": _header, "cookie_": _cookie, "arg_": _argument}
