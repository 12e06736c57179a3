"""An nftables table as a value, and the scripts that install it or go from one to the next.

The kernel takes a script in one transaction. A change touches only what differs: elements that are flushed
and added again can, for a moment, not be found by a packet on another processor, and a base chain that is
deleted takes all packets that wait in a queue along.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

TABLE = "l4lb"


@dataclass(frozen=True, slots=True)
class Ruleset:
    """What is in the table `inet l4lb`, or in that of another `family`.

    `sets` maps a set's or map's name to its declaration (`set { … }`, `map { … }`), `elements` to what is in
    it, those of a map as `key : value`. `chains` maps a chain to its rules, `hooks` the base chains to their
    hook, also those that have no rules now. Chains in `filled_elsewhere` get their rules by other means and
    are left alone.
    """

    counters: tuple[str, ...]
    sets: Mapping[str, str]
    elements: Mapping[str, frozenset[str]]
    hooks: Mapping[str, str]
    chains: Mapping[str, tuple[str, ...]]
    filled_elsewhere: frozenset[str]
    family: str = "inet"

    @property
    def table(self) -> str:
        """The words that name the table in a script."""
        return f"{self.family} {TABLE}"


_EMPTY = Ruleset((), {}, {}, {}, {}, frozenset())


def render_install(rules: Ruleset) -> str:
    """The script that puts the table there, in place of what a former run may have left."""
    return _script([f"add table {rules.table}", f"delete table {rules.table}", *_change(_EMPTY, rules)])


def render_change(old: Ruleset, new: Ruleset) -> str:
    """The script that makes `new` of a table that is `old`; empty where they are the same."""
    return _script(list(_change(old, new)))


def render_again(rules: Ruleset, kept: Collection[str]) -> str:
    """The script that makes `rules` of a table of the same sets whose contents are not known, or that is not
    there.

    No hook is taken away, for with one everything goes that waits in any queue. What is in the sets `kept`
    stays there too. Chains in `filled_elsewhere` are emptied.
    """
    lines = [f"add table {rules.table}", *_declare(_EMPTY, rules)]
    lines += [f"flush chain {rules.table} {name}" for name in rules.chains]
    for name, declaration in rules.sets.items():
        if name not in kept:
            lines.append(f"flush {declaration.partition(' ')[0]} {rules.table} {name}")
        if elements := sorted(rules.elements.get(name, ())):
            lines.append(f"add element {rules.table} {name} {{ {', '.join(elements)} }}")
    for name, chain in rules.chains.items():
        lines += [f"add rule {rules.table} {name} {rule}" for rule in chain]
    return _script(lines)


def render_drain(rules: Ruleset) -> str:
    """The script after which no further packet is queued; those that are come to their end.

    New ones are dropped, not left to the host: it would reset connections that the next run could go on with.
    """
    lines = []
    for name in rules.chains:
        if name.startswith(("incoming", "pool_")):
            lines += [
                f"flush chain inet {TABLE} {name}",
                f"add rule inet {TABLE} {name} counter name undecided drop",
            ]
    return _script([*lines, f"flush chain inet {TABLE} queue_out"])


def render_forget_flows() -> str:
    """The script that makes the kernel forget every flow that it has learned."""
    return _script([f"flush map inet {TABLE} learned{family}" for family in (4, 6)])


def _script(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _change(old: Ruleset, new: Ruleset) -> Iterator[str]:
    if old is _EMPTY:
        yield f"add table {new.table}"
    yield from _declare(old, new)
    for name, elements in new.elements.items():
        before = old.elements.get(name, frozenset())
        if gone := sorted(_key(element) for element in before - elements):
            yield f"delete element {new.table} {name} {{ {', '.join(gone)} }}"
        if added := sorted(elements - before):
            yield f"add element {new.table} {name} {{ {', '.join(added)} }}"
    for name, rules in new.chains.items():
        if rules == old.chains.get(name, ()) or name in new.filled_elsewhere:
            continue
        if old.chains.get(name):
            yield f"flush chain {new.table} {name}"
        yield from (f"add rule {new.table} {name} {rule}" for rule in rules)
    yield from _remove(old, new)


def _declare(old: Ruleset, new: Ruleset) -> Iterator[str]:
    yield from (f"add counter {new.table} {name}" for name in new.counters if name not in old.counters)
    for name, declaration in new.sets.items():
        if name not in old.sets:
            kind, _, body = declaration.partition(" ")
            yield f"add {kind} {new.table} {name} {body}"
    for name in new.chains:
        if name not in old.chains:
            hook = f" {{ {new.hooks[name]}; policy accept; }}" if name in new.hooks else ""
            yield f"add chain {new.table} {name}{hook}"


def _remove(old: Ruleset, new: Ruleset) -> Iterator[str]:
    """Chains and sets that are no longer used: emptied first, for they may refer to one another.

    A base chain stays, empty.
    """
    chains = [name for name in old.chains if name not in new.chains]
    sets = [name for name in old.sets if name not in new.sets]
    yield from (f"flush chain {new.table} {name}" for name in chains)
    for name in sets:
        if old.elements.get(name):
            yield f"flush {old.sets[name].partition(' ')[0]} {new.table} {name}"
    yield from (f"delete chain {new.table} {name}" for name in chains if name not in old.hooks)
    yield from (f"delete {old.sets[name].partition(' ')[0]} {new.table} {name}" for name in sets)


def _key(element: str) -> str:
    return element.partition(" : ")[0]
