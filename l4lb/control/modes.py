"""The rules that a forwarding mode brings: what it can reach, and which addresses it takes for itself.

Where packets keep their destination (dsr, ipip, gue) they keep its port. Only a tunnel can mediate between
the families of client and backend. What the kernel cannot do alone, it cannot do while the daemon is away.
And an address that packets are given as their source must not be one that is balanced: an answer to it, or a
packet from it, would be taken for another's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from l4lb.control.field import Field
from l4lb.control.message import quoted
from l4lb.control.placed import PlacedService
from l4lb.dataplane.table import MAX_MARKED_VIPS
from l4lb.model import Address, Forward, Network, OnFailure, Via


def check_mode(service: PlacedService) -> None:
    """The rules within one service."""
    _check_family(service)
    if service.value.forward.answers_itself:
        _check_kept_port(service)
    if service.value.forward is Forward.DSR:
        _check_marked_vips(service)
    if service.value.on_failure is OnFailure.HASH:
        _check_kernel_hash(service)
    if service.value.health is not None and service.value.health.via is Via.VIP:
        _check_way_of_checks(service)


def check_pool(addresses: Sequence[tuple[Address, Field]], services: Sequence[PlacedService]) -> None:
    """The rules for the addresses of `l4.masquerade`, which are this host's and nobody else's."""
    if not addresses:
        return
    vips = {listen.address: service for service in services for listen in service.value.listens}
    servers = {backend.address: service for service in services for backend in service.value.backends}
    for address, field in addresses:
        if owner := vips.get(address):
            raise field.error(
                f"{address} is an address that service {quoted(owner.value.name)} listens on, "
                "answers could not be told from requests; use an address of this host that nothing listens on"
            )
        if owner := servers.get(address):
            raise field.error(
                f"{address} is a backend of service {quoted(owner.value.name)}; use an address of this host"
            )
    families = {address.version for address, _ in addresses}
    for service in services:
        version = service.value.listens[0].address.version
        if service.value.forward is Forward.MASQUERADE and version not in families:
            raise service.keys["forward"].error(
                f"masquerade needs an IPv{version} address as its source, "
                "and l4.masquerade.addresses has none; add one"
            )


def check_outer_sources(networks: Sequence[tuple[Network, Field]], services: Sequence[PlacedService]) -> None:
    """The rule for the networks of `l4.tunnel`: a server drops packets that come from its own address."""
    for network, field in networks:
        for address, service in _addresses(services):
            if address in network:
                raise field.error(
                    f"{network} holds {address} of service {quoted(service.value.name)}, and a server takes "
                    "no packets from its own addresses; use a network without VIPs and backends"
                )


def _addresses(services: Sequence[PlacedService]) -> Iterator[tuple[Address, PlacedService]]:
    for service in services:
        for listen in service.value.listens:
            yield listen.address, service
        for backend in service.value.backends:
            yield backend.address, service


def _check_family(service: PlacedService) -> None:
    if service.value.forward.is_tunnel:
        return
    first = service.value.listens[0]
    for backend, field in zip(service.value.backends, service.backends, strict=True):
        if backend.address.version != first.address.version:
            raise field.error(
                f"is IPv{backend.address.version}, but the service listens on {first}; "
                f"use an IPv{first.address.version} address"
            )


def _check_kept_port(service: PlacedService) -> None:
    """A backend's port is right where it is the only one that clients can address."""
    kept = {port for listen in service.value.listens for port in (listen.first_port, listen.last_port)}
    for backend, field in zip(service.value.backends, service.backends, strict=True):
        if backend.port is not None and kept != {backend.port}:
            raise field.error(
                f"with {service.value.forward} packets keep their port, and not all come for "
                f"port {backend.port}; leave the port out, or use nat or masquerade"
            )


def _check_marked_vips(service: PlacedService) -> None:
    vips: set[Address] = set()
    for listen, field in zip(service.value.listens, service.listens, strict=True):
        vips.add(listen.address)
        if len(vips) > MAX_MARKED_VIPS:
            raise field.error(
                f"a service with dsr has at most {MAX_MARKED_VIPS} addresses, {listen.address} is one more; "
                "split the service"
            )


def _check_way_of_checks(service: PlacedService) -> None:
    forward = service.value.forward
    if not forward.answers_itself:
        raise service.keys["health"].error(
            f"via: vip is for dsr, ipip and gue, with {forward} checks ask the backend's own address; "
            "remove it"
        )
    first = service.value.listens[0]
    for backend, field in zip(service.value.backends, service.backends, strict=True):
        if backend.address.version != first.address.version:
            raise field.error(
                f"is IPv{backend.address.version}, and a check cannot go there through {first.address}; "
                "use via: backend"
            )


def _check_kernel_hash(service: PlacedService) -> None:
    forward = service.value.forward
    if forward.is_tunnel or forward is Forward.MASQUERADE:
        raise service.keys["on_failure"].error(
            f"hash leaves packets to the kernel, and {forward} is nothing that it can do alone; "
            "use drop or pass"
        )
