"""What a running daemon has decided, as plain values that its successor can take over (SIGUSR2).

Numbers that packets, flows or the kernel's table know must stay what they are: slots, frontends, pool
addresses, the plan. Everything else the successor makes anew from the configuration, and changes the rules
by the difference.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import Any

from l4lb.control.design import Design, Designer
from l4lb.control.expand import FrontendKey, frontend_indices
from l4lb.control.pool import AddressPool
from l4lb.control.rule_plan import RulePlan
from l4lb.control.ruleset import Ruleset
from l4lb.control.slots import SlotRegistry
from l4lb.errors import L4lbError
from l4lb.model import Datapath

_VERSION = 2
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Legacy:
    """What was taken over."""

    designer: Designer
    slots: SlotRegistry
    indices: dict[FrontendKey, int]
    rules: Ruleset


def dump_state(design: Design, designer: Designer) -> Json:
    """`design` and `designer` as JSON."""
    rules = design.rules
    return {
        "version": _VERSION,
        "datapath": str(designer.datapath),
        "key": designer.key.hex(),
        "plan": asdict(designer.plan),
        "pool": [str(address) for address in designer.pool.addresses],
        "masquerade": [str(address) for address in design.config.masquerade.addresses],
        "slots": design.slots.dump(),
        "frontends": [
            [vip.hex(), protocol, port, index]
            for (vip, protocol, port), index in frontend_indices(design.table).items()
        ],
        "rules": {
            "counters": list(rules.counters),
            "sets": dict(rules.sets),
            "elements": {name: sorted(elements) for name, elements in rules.elements.items()},
            "hooks": dict(rules.hooks),
            "chains": {name: list(chain) for name, chain in rules.chains.items()},
            "filled_elsewhere": sorted(rules.filled_elsewhere),
        },
    }


def load_state(state: Json) -> Legacy:
    """What `dump_state` wrote, perhaps in another version. L4lbError where it cannot be read."""
    if state.get("version") != _VERSION:
        raise L4lbError(
            f"the state of the program before is of version {state.get('version')}, not {_VERSION}"
        )
    plan = dict(state["plan"])
    plan["masquerade_ports"] = [(first, last) for first, last in plan["masquerade_ports"]]
    configured, known = (
        tuple(ip_address(address) for address in state[name]) for name in ("masquerade", "pool")
    )
    pool = AddressPool(configured, known=known)
    rules = state["rules"]
    return Legacy(
        designer=Designer(bytes.fromhex(state["key"]), Datapath(state["datapath"]), RulePlan(**plan), pool),
        slots=SlotRegistry.load(state["slots"]),
        indices={
            (bytes.fromhex(vip), protocol, port): index for vip, protocol, port, index in state["frontends"]
        },
        rules=Ruleset(
            counters=tuple(rules["counters"]),
            sets=rules["sets"],
            elements={name: frozenset(elements) for name, elements in rules["elements"].items()},
            hooks=rules["hooks"],
            chains={name: tuple(chain) for name, chain in rules["chains"].items()},
            filled_elsewhere=frozenset(rules["filled_elsewhere"]),
        ),
    )
