"""Conditions of nginx (`if`, `allow`, `deny`, names of servers) as matches of routes."""

from __future__ import annotations

import re
from typing import Any

from l4lb.control.network import parse_network
from l7.config.words import parse_host
from l7.nginx.remarks import Remarks
from l7.nginx.source import Directive, Scope
from l7.nginx.words import expression

_EQUAL = ("=", "!=")
_METHODS = re.compile(r"\^?\(?([A-Z]+(?:\|[A-Z]+)*)\)?\$?")


def condition_of(directive: Directive) -> dict[str, Any]:
    """What an `if` asks, as keys of a match; `scheme` is for the caller. ValueError where there are none."""
    args = list(directive.args)
    if len(args) == 1 and args[0].startswith("$"):
        args += ["!=", ""]
    if len(args) != 3:
        raise ValueError("this condition has no counterpart")
    variable, operator, value = args[0].removeprefix("$"), args[1], args[2]
    negate = operator.startswith("!")
    if variable == "scheme" and operator == "=":
        return {"scheme": value}
    if variable == "host" and operator == "=":
        return {"host": parse_host(value)}
    if variable == "request_method":
        return _method(operator, value)
    if variable == "remote_addr" and operator == "=":
        return {"client": str(parse_network(value))}
    if variable in ("uri", "document_uri", "request_uri") and operator in ("~", "~*"):
        return {"path": regex_path(value, operator == "~*")}
    for prefix, key in (("http_", "header"), ("cookie_", "cookie"), ("arg_", "query")):
        if variable.startswith(prefix):
            name = variable.removeprefix(prefix)
            return {
                key: {name.replace("_", "-") if key == "header" else name: _value(operator, value, negate)}
            }
    if variable == "host" and operator in ("~", "~*"):
        return {"header": {"Host": {"regex": host_expression(value)}}}
    raise ValueError("this condition has no counterpart")


def regex_path(text: str, ignore_case: bool) -> dict[str, Any]:
    """An expression as a path of a match."""
    path: dict[str, Any] = {"regex": expression(text)}
    if ignore_case:
        path["ignore_case"] = True
    return path


def _method(operator: str, value: str) -> dict[str, Any]:
    if operator == "=":
        return {"method": value}
    if operator == "~" and (found := _METHODS.fullmatch(value)):
        return {"method": found[1].split("|")}
    raise ValueError("methods are named, not excluded; name those that are meant in match.method")


def _value(operator: str, value: str, negate: bool) -> Any:
    if operator in _EQUAL and not value:
        return {"present": negate}
    if operator in _EQUAL:
        return {"is": value, "negate": True} if negate else value
    pattern = expression(value)
    if operator.endswith("*"):
        pattern = f"(?i){pattern}"
    return {"regex": pattern, "negate": True} if negate else {"regex": pattern}


def host_expression(text: str) -> str:
    """An expression for `$host`, which has no port, as one for the header, which may."""
    return f"(?i){expression(text.removesuffix('$'))}{'(:[0-9]+)?$' if text.endswith('$') else ''}"


def names_of(server: Scope, remarks: Remarks) -> tuple[list[str], list[str]]:
    """The names of a server: hosts, and expressions for the Host header."""
    hosts: list[str] = []
    expressions: list[str] = []
    for directive in server.here("server_name"):
        for name in directive.args:
            try:
                _add_name(name, hosts, expressions)
            except ValueError as error:
                remarks.lost(directive, str(error).partition(";")[0])
    return list(dict.fromkeys(hosts)), expressions


def _add_name(name: str, hosts: list[str], expressions: list[str]) -> None:
    if name in ("", "_", "--", "!@#") or name.startswith("$"):
        return
    if name.startswith("~"):
        expressions.append(host_expression(name[1:]))
    elif name.endswith(".*"):
        expressions.append(f"(?i)^{re.escape(name[:-1])}[^:]*(:[0-9]+)?$")
    elif name.startswith("."):
        hosts += [parse_host(name[1:]), parse_host(f"*{name}")]
    else:
        hosts.append(parse_host(name))


def access_of(scope: Scope) -> tuple[list[str], bool] | None:
    """`allow` and `deny`: the networks that are named, and whether they are those that may; or None.

    ValueError where both are named in turns.
    """
    ordered: list[Directive] = []
    around: Scope | None = scope
    while around is not None and not ordered:
        ordered = around.here("allow", "deny")
        around = around.parent
    if not ordered:
        return None
    *named, last = ordered
    if last.first == "all" and all(one.name != last.name for one in named):
        networks = [str(parse_network(one.first)) for one in named if one.first != "unix:"]
        return networks, last.name == "deny"
    if all(one.name == "deny" for one in ordered):
        return [str(parse_network(one.first)) for one in ordered], False
    raise ValueError("allow and deny in turns have no counterpart")
