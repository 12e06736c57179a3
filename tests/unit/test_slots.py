"""Slots: kept while configured, reserved while remembered, reused afterwards."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest

from l4lb.control.slots import SlotRegistry
from l4lb.errors import L4lbError
from l4lb.model import Backend, L4Config, Listen, Protocol, Service

LISTEN = Listen(ip_address("203.0.113.10"), Protocol.TCP, 80, 80)


def config(**services: str) -> L4Config:
    """Services by name, each with a backend for every letter."""
    return L4Config(
        tuple(
            Service(name, (LISTEN,), tuple(Backend(address(letter), 80) for letter in letters))
            for name, letters in services.items()
        )
    )


def address(letter: str) -> object:
    return ip_address(f"10.0.0.{ord(letter) - ord('A') + 1}")


def unused(slot: int) -> int:
    return 0


def flows(*slots: int) -> Callable[[int], int]:
    return lambda slot: int(slot in slots)


def slots_of(registry: SlotRegistry, letters: str, service: str = "web") -> list[int]:
    return [registry.slot(service, f"{address(letter)}:80") for letter in letters]


def registry_of(letters: str, slots: int = 16) -> SlotRegistry:
    registry = SlotRegistry(slots)
    registry.assign(config(web=letters), unused)
    return registry


def test_slots_are_given_in_the_order_of_the_configuration() -> None:
    registry = SlotRegistry()
    registry.assign(config(web="AB", api="BC"), unused)
    assert slots_of(registry, "AB") == [0, 1]
    assert slots_of(registry, "BC", "api") == [2, 3]
    assert [registry.owner(slot) for slot in (1, 2)] == [("web", "10.0.0.2:80"), ("api", "10.0.0.2:80")]


def test_a_backend_keeps_its_slot_wherever_it_stands() -> None:
    registry = registry_of("ABC")
    registry.assign(config(new="Z", web="CXBA"), unused)
    assert slots_of(registry, "ABC") == [0, 1, 2]
    assert slots_of(registry, "Z", "new") + slots_of(registry, "X") == [3, 4]


def test_a_slot_given_up_just_now_is_not_reused_at_once() -> None:
    registry = registry_of("AB")
    registry.assign(config(web="BC"), unused)
    assert slots_of(registry, "BC") == [1, 2]
    registry.assign(config(web="BCD"), unused)
    assert slots_of(registry, "BCD") == [1, 2, 0]


def test_a_slot_stays_reserved_while_flows_remember_it() -> None:
    registry = registry_of("AB")
    registry.assign(config(web="B"), flows(0))
    for _ in range(3):
        registry.assign(config(web="BC"), flows(0))
        assert slots_of(registry, "BC") == [1, 2]
        assert registry.owner(0) == ("web", "10.0.0.1:80")
        assert slots_of(registry, "A") == [0]
    registry.assign(config(web="BCD"), unused)
    assert slots_of(registry, "D") == [0]
    assert registry.owner(0) == ("web", "10.0.0.4:80")
    with pytest.raises(KeyError):
        slots_of(registry, "A")


def test_a_backend_that_returns_while_reserved_gets_its_slot_back() -> None:
    registry = registry_of("AB")
    registry.assign(config(web="B"), flows(0))
    registry.assign(config(web="BCA"), flows(0))
    assert slots_of(registry, "ABC") == [0, 1, 2]


def test_the_same_backend_of_another_service_is_another() -> None:
    registry = registry_of("A")
    registry.assign(config(renamed="A"), unused)
    assert slots_of(registry, "A", "renamed") == [1]


def test_the_lowest_free_slot_comes_first() -> None:
    registry = registry_of("ABCD")
    registry.assign(config(web="BD"), unused)
    registry.assign(config(web="BD"), unused)
    registry.assign(config(web="BDXYZ"), unused)
    assert slots_of(registry, "XYZ") == [0, 2, 4]


def test_where_no_slot_is_left_those_given_up_just_now_go_unless_they_have_flows() -> None:
    registry = registry_of("ABC", slots=4)
    registry.assign(config(web="CXY"), flows(0))
    assert slots_of(registry, "CXY") == [2, 3, 1]
    assert slots_of(registry, "A") == [0]
    with pytest.raises(KeyError):
        slots_of(registry, "B")


def test_no_room_is_an_error_that_changes_nothing() -> None:
    registry = registry_of("ABC", slots=4)
    with pytest.raises(L4lbError) as caught:
        registry.assign(config(web="CXYZ"), flows(0))
    assert str(caught.value) == (
        "no slot is left for 1 of 4 backends: removed backends still have 2 of the 4; "
        "wait until their flows have ended"
    )
    assert slots_of(registry, "ABC") == [0, 1, 2]
    registry.assign(config(web="ABCD"), unused)
    assert slots_of(registry, "D") == [3]


def test_a_copy_goes_its_own_way() -> None:
    registry = registry_of("AB")
    trial = registry.copy()
    trial.assign(config(web="B"), unused)
    trial.assign(config(web="BX"), unused)
    assert slots_of(trial, "BX") == [1, 0]
    assert slots_of(registry, "AB") == [0, 1]
    assert registry.owner(0) == ("web", "10.0.0.1:80")


def test_all_slots_can_be_used() -> None:
    many = L4Config(
        (Service("web", (LISTEN,), tuple(Backend(ip_address(0x0A00_0000 + i), 80) for i in range(65535))),)
    )
    registry = SlotRegistry()
    registry.assign(many, unused)
    assert registry.slot("web", "10.0.255.254:80") == 65534
