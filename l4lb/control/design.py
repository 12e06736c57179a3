"""From a configuration to all that has to be true while it runs: table, rules, and what the host must have.

Pure: a `Design` is a value, two of them can be compared, and the daemon carries the difference out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from l4lb.control.alike import are_alike
from l4lb.control.expand import (
    Custom,
    Expansion,
    FrontendKey,
    LookupCache,
    Surroundings,
    expand,
    needs_paths,
    no_custom,
)
from l4lb.control.member import Key
from l4lb.control.pool import AddressPool, Path
from l4lb.control.rule_plan import RulePlan
from l4lb.control.rules import describe_rules
from l4lb.control.ruleset import Ruleset
from l4lb.control.slots import SlotRegistry
from l4lb.dataplane.table import Table
from l4lb.errors import L4lbError
from l4lb.model import Address, Datapath, Forward, L4Config, OnDown


@dataclass(frozen=True, slots=True)
class Design:
    """A configuration with everything that follows from it.

    `neighbours` are the backends with direct return, each with the interface that leads to it; `withdrawn`
    are VIPs that the host is not to have now.
    """

    expansion: Expansion
    slots: SlotRegistry
    rules: Ruleset
    neighbours: frozenset[tuple[Address, str]]
    withdrawn: frozenset[Address] = frozenset()
    settled: bool = True
    """Whether the rules know no marks but those of the table."""

    @property
    def config(self) -> L4Config:
        """The configuration."""
        return self.expansion.config

    @property
    def table(self) -> Table:
        """What packets are decided by."""
        return self.expansion.table

    @property
    def vips(self) -> set[Address]:
        """The addresses that clients ask."""
        return {listen.address for service in self.config.services for listen in service.listens}


@dataclass(slots=True)
class Designer:
    """Makes designs for one run of the daemon: `datapath`, `plan` and `key` are fixed for its life."""

    key: bytes
    datapath: Datapath
    plan: RulePlan
    pool: AddressPool
    lookups: LookupCache = field(default_factory=LookupCache)
    custom: Custom = no_custom

    def design(
        self,
        config: L4Config,
        slots: SlotRegistry,
        paths: Mapping[Address, Path],
        *,
        flows_of: Callable[[int], int],
        previous: Design | None = None,
        ended: Iterable[tuple[Key, OnDown]] = (),
        withdrawn: frozenset[Address] = frozenset(),
        indices: Mapping[FrontendKey, int] | None = None,
    ) -> Design:
        """The design of `config`; `previous` is the one before it, whose marks stay known.

        `ended` are backends whose flows shall end, each with how; `withdrawn` VIPs that are given up.
        `flows_of` tells how many flows remember a slot. `indices` are the numbers of frontends where there is
        no design before it. L4lbError where something has no room, or a backend cannot be reached as its mode
        needs.
        """
        slots.assign(config, flows_of)
        self.pool.assign(config, paths)
        around = Surroundings(
            key=self.key,
            seed=self.plan.seed,
            replies_seen=not self.plan.marks,
            learns=self.datapath is Datapath.OFFLOAD,
            workers=self.plan.workers,
            paths=paths,
            pool=self.pool,
            custom=self.custom,
        )
        table = expand(
            config,
            slots,
            around,
            lookups=self.lookups,
            indices=indices,
            previous=previous.expansion if previous else None,
        )
        listed = list(ended)
        ends = {how: frozenset(slots.slot(*key) for key, end in listed if end is how) for how in OnDown}
        table = replace(table, resets=ends[OnDown.RESET], moves=ends[OnDown.MOVE])
        expansion = Expansion(config, around, table)
        settled = previous is None or _have_the_same_rules(previous.expansion, expansion)
        if previous is not None and previous.settled and settled:
            rules = previous.rules
        else:
            rules = describe_rules(table, config.services, self.plan, previous.table if previous else None)
        neighbours = frozenset(_neighbours(config, paths))
        return Design(expansion, slots, rules, neighbours, withdrawn, settled)


def _have_the_same_rules(old: Expansion, new: Expansion) -> bool:
    return (
        old.around == new.around
        and are_alike(old.config, new.config)
        and (old.table.pool, old.table.resets, old.table.moves)
        == (new.table.pool, new.table.resets, new.table.moves)
    )


def addresses_to_reach(config: L4Config) -> set[Address]:
    """The backends whose paths `Designer.design` needs."""
    return {
        backend.address
        for service in config.services
        if needs_paths(service.forward)
        for backend in service.backends
    }


def fixed_differences(old: L4Config, new: L4Config) -> list[str]:
    """The keys that differ and cannot change while a daemon runs: flows, queues or marks depend on them."""
    return [
        key
        for key, before, after in (
            ("l4.datapath", old.datapath, new.datapath),
            ("l4.workers", old.workers, new.workers),
            ("l4.queue", old.queue, new.queue),
            ("l4.flow_table.capacity", old.flows.capacity, new.flows.capacity),
            ("l4.masquerade", old.masquerade, new.masquerade),
            ("l4.hash_key", old.hash_key, new.hash_key),
        )
        if before != after
    ]


def _neighbours(config: L4Config, paths: Mapping[Address, Path]) -> Iterable[tuple[Address, str]]:
    for service in config.services:
        if service.forward is not Forward.DSR:
            continue
        for backend in service.backends:
            path = paths[backend.address]
            if path.gateway is not None:
                raise L4lbError(
                    f"service {service.name}, backend {backend.address}: forward: dsr needs it on a network "
                    f"of this host, but the way to it leads by {path.gateway}; use ipip or gue"
                )
            yield backend.address, path.interface
