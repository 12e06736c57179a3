"""The list of listeners as values."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

from l4lb.control.endpoint import parse_local_endpoint
from l4lb.control.field import Field
from l4lb.control.message import quoted
from l4lb.control.network import parse_network
from l4lb.model import Address
from l7.config.placed import PlacedListener
from l7.config.pools import file_of
from l7.config.words import parse_file, parse_name, parse_pool_name, parse_server_name
from l7.model import BackendAddress, Certificate, ClientCertificates, Listener, ListenerTls, PassThrough

_MAX_CONNECTIONS = 1_000_000
_KEYS = ("name", "listen", "tls", "pass_through", "accept_proxy", "max_connections")
_TLS_KEYS = (
    *("certificates", "refuse_unknown", "min_version", "ciphers", "client_ca", "client_certificates"),
)
_CIPHERS = re.compile(r"[A-Za-z0-9_:+!@=,-]{1,2000}")


class _MinVersion(StrEnum):
    V12 = "1.2"
    V13 = "1.3"


def parse_listeners(field: Field) -> list[PlacedListener]:
    """The listeners. Raises ConfigError."""
    listeners = [_parse_listener(item) for item in field.items("listeners")]
    if not listeners:
        raise field.error("the list is empty; add at least one listener")
    return listeners


def _parse_listener(field: Field) -> PlacedListener:
    keys = field.keys(_KEYS, required=("listen",))
    what = "an endpoint such as 0.0.0.0:443"
    endpoints = keys["listen"].distinct(parse_local_endpoint, what, "endpoints")
    pass_through = _parse_pass_through(keys["pass_through"]) if "pass_through" in keys else []
    accept_proxy = (
        keys["accept_proxy"].distinct(parse_network, "a network such as 10.0.0.0/8", "networks")
        if "accept_proxy" in keys
        else []
    )
    listener = Listener(
        name=keys["name"].parse(parse_name, "a name") if "name" in keys else _name_of(endpoints[0][0]),
        endpoints=tuple(endpoint for endpoint, _ in endpoints),
        tls=_parse_tls(keys["tls"]) if "tls" in keys else None,
        pass_through=tuple(rule for rule, _ in pass_through),
        accept_proxy=tuple(network for network, _ in accept_proxy),
        max_connections=(
            keys["max_connections"].integer(1, _MAX_CONNECTIONS) if "max_connections" in keys else None
        ),
    )
    pools = [(rule.pool, item) for rule, item in pass_through]
    return PlacedListener(listener, field, keys, [item for _, item in endpoints], pools)


def _name_of(endpoint: tuple[Address, int]) -> str:
    return BackendAddress(*endpoint).name


def _parse_pass_through(field: Field) -> list[tuple[PassThrough, Field]]:
    """The rules, and the fields of their pools."""
    found = []
    seen: dict[str, Field] = {}
    for item in field.items_or_one("rules"):
        keys = item.keys(("names", "pool"), required=("pool",))
        names = (
            keys["names"].distinct(parse_server_name, "a server name such as example.com", "names")
            if "names" in keys
            else []
        )
        for name, place in names or [("", item)]:
            if other := seen.get(name):
                which = quoted(name) if name else "all other names"
                raise place.error(f"{which} is in {other.path} too; remove one of the two")
            seen[name] = place
        rule = PassThrough(
            names=tuple(name for name, _ in names),
            pool=keys["pool"].parse(parse_pool_name, "the name of a pool"),
        )
        found.append((rule, keys["pool"]))
    if not found:
        raise field.error("the list is empty; add a rule, or remove the key")
    return found


def _parse_tls(field: Field) -> ListenerTls:
    keys = field.keys(_TLS_KEYS, required=("certificates",))
    certificates = tuple(
        _parse_certificate(item) for item in keys["certificates"].items_or_one("certificates")
    )
    if not certificates:
        raise keys["certificates"].error("the list is empty; add {cert: FILE, key: FILE}")
    client_ca = file_of(keys.get("client_ca"))
    mode = keys["client_certificates"].choice(ClientCertificates) if "client_certificates" in keys else None
    if mode and client_ca is None:
        raise keys["client_certificates"].error("needs the authority that signs them; add client_ca")
    if client_ca and mode is None:
        mode = ClientCertificates.REQUIRED
    min_version = keys["min_version"].choice(_MinVersion) if "min_version" in keys else _MinVersion.V12
    ciphers = keys["ciphers"].parse(_parse_ciphers, "a list of OpenSSL") if "ciphers" in keys else None
    if ciphers and min_version is _MinVersion.V13:
        raise keys["ciphers"].error("is for TLS 1.2, and min_version is 1.3; remove one of the two")
    return ListenerTls(
        certificates=certificates,
        refuse_unknown="refuse_unknown" in keys and keys["refuse_unknown"].flag(),
        min_version=min_version.value,
        ciphers=ciphers,
        client_ca=client_ca,
        client_certificates=mode,
    )


def _parse_ciphers(text: str) -> str:
    if not _CIPHERS.fullmatch(text):
        raise ValueError(f"{quoted(text)} is not a list of ciphers; see openssl ciphers")
    return text


def _parse_certificate(field: Field) -> Certificate:
    what = "an absolute path of a file"
    if not field.is_mapping():
        return Certificate(Path(field.parse(parse_file, what)))
    keys = field.keys(("cert", "key"), required=("cert",))
    return Certificate(Path(keys["cert"].parse(parse_file, what)), file_of(keys.get("key")))
