"""Affinity as the configuration has it: the length of client networks, and what services of a group must have
alike.

The services of a group remember a client in one place, so they agree about what a client is and for how long
it is remembered; and what they remember is a host, so each of them has a backend at every one. Sorry servers
are apart: a client is to come back from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from l4lb.control.field import Field
from l4lb.control.message import quoted
from l4lb.control.placed import PlacedService
from l4lb.control.units import show_duration
from l4lb.model import Address, Service

_Hosts = Mapping[Address, Field]
"""Where in the file each address of a service's backends stands."""


def affinity_prefix(service: Service) -> int:
    """The length of a client network in bits, or 0; clients of a service are of one family."""
    if service.affinity is None:
        return 0
    is_ipv4 = service.listens[0].address.version == 4
    return service.affinity.prefix4 if is_ipv4 else service.affinity.prefix6


def group_of(service: Service) -> str | None:
    """The affinity group of a service."""
    return service.affinity.group if service.affinity else None


def describe_affinity(service: Service, services: Sequence[Service]) -> str | None:
    """A service's affinity in words, with those of `services` that share it; None without."""
    if service.affinity is None:
        return None
    text = f"client-ip/{affinity_prefix(service)} for {_lasts(service)}"
    group = group_of(service)
    if group is None:
        return text
    others = [one.name for one in services if one.name != service.name and group_of(one) == group]
    return f"{text}, group {group} with {', '.join(others) or 'no other service'}"


def check_affinity_groups(services: Sequence[PlacedService]) -> None:
    """What services of one group must have alike. Each is held against the first; ConfigError is about the
    later one."""
    firsts: dict[str, tuple[PlacedService, _Hosts]] = {}
    for service in services:
        group = group_of(service.value)
        if group is None:
            continue
        hosts = _hosts(service)
        first, theirs = firsts.setdefault(group, (service, hosts))
        _check_clients(first, service)
        _check_hosts(first, theirs, service, hosts)


def _hosts(service: PlacedService) -> _Hosts:
    """The addresses of the backends, each of which is there once."""
    hosts: dict[Address, Field] = {}
    for backend, field in zip(service.value.backends, service.backends, strict=True):
        if backend.sorry:
            continue
        if other := hosts.get(backend.address):
            raise field.error(
                f"{backend.address} is the address of {other.path} too, and in an affinity group a host has "
                "one backend; remove one of the two, or give the service no group"
            )
        hosts[backend.address] = field
    return hosts


def _check_clients(first: PlacedService, service: PlacedService) -> None:
    theirs, ours = first.value, service.value
    versions = [one.listens[0].address.version for one in (theirs, ours)]
    if versions[0] != versions[1]:
        raise _key(service, "group").error(
            f"the service is for IPv{versions[1]}, and service {quoted(theirs.name)} of the same group for "
            f"IPv{versions[0]}; use a group for each family"
        )
    for key, have, want in (
        ("mask", affinity_prefix(ours), affinity_prefix(theirs)),
        ("timeout", _lasts(ours), _lasts(theirs)),
    ):
        if have != want:
            raise _key(service, key).error(
                f"the {key} is {have}, and {want} in service {quoted(theirs.name)} of the same group, "
                "which are to share one entry; make them the same"
            )


def _lasts(service: Service) -> str:
    return show_duration(service.affinity.timeout_s) if service.affinity else ""


def _check_hosts(first: PlacedService, theirs: _Hosts, service: PlacedService, ours: _Hosts) -> None:
    name = quoted(first.value.name)
    for address, field in ours.items():
        if address not in theirs:
            raise field.error(
                f"service {name} of the same affinity group has no backend at {address}; add one there, or "
                "remove this one"
            )
    for address in theirs:
        if address not in ours:
            raise _key(service, "group").error(
                f"service {name} of the same group has a backend at {address}, and this one has not; add one "
                "here, or remove that one"
            )


def _key(service: PlacedService, key: str) -> Field:
    """Where the key of `affinity` stands, or that where the key does not."""
    return service.keys["affinity"].at((key,))
