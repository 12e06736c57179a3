"""An nftables table as a value that scripts change, as strict as the kernel, and without one.

AssertionError for what the kernel would refuse: adding what is there, deleting what is not, naming a chain or
set that is not there, deleting one that something still refers to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from l4lb.control.ruleset import TABLE, Ruleset

_REFERENCE = re.compile(r"\b(?:jump|goto) ([\w.-]+)|@(\w+)\b(?!,)")


@dataclass
class NftTable:
    """`elements` has key → element by set; `chains` rules by chain, `hooks` the base chains among them."""

    counters: set[str] = field(default_factory=set)
    sets: dict[str, str] = field(default_factory=dict)
    elements: dict[str, dict[str, str]] = field(default_factory=dict)
    chains: dict[str, list[str]] = field(default_factory=dict)
    hooks: set[str] = field(default_factory=set)

    def apply(self, script: str) -> None:
        """Carries out a script."""
        for line in script.splitlines():
            verb, kind, family, table, *rest = line.split(" ", 4)
            assert (family, table) == ("inet", TABLE), line
            name, _, body = (rest[0] if rest else "").partition(" ")
            getattr(self, f"_{verb}_{'set' if kind == 'map' else kind}")(name, body, line)
        for name, text in self._texts():
            for chain, found in _REFERENCE.findall(text):
                assert not chain or chain in self.chains, f"{name} goes to {chain}, which is not there"
                assert not found or found in self.sets, f"{name} asks {found}, which is not there"

    def matches(self, rules: Ruleset) -> None:
        """Asserts that it is what `rules` describes. Base chains that it does not know are left, empty."""
        assert self.sets == dict(rules.sets)
        assert self.counters >= set(rules.counters)
        for name, elements in rules.elements.items():
            assert set(self.elements.get(name, {}).values()) == elements, name
        for name, chain in self.chains.items():
            if name not in rules.chains:
                assert name in self.hooks and not chain, name
            elif name not in rules.filled_elsewhere:
                assert tuple(chain) == rules.chains[name], name

    def _texts(self) -> list[tuple[str, str]]:
        rules = [(name, rule) for name, chain in self.chains.items() for rule in chain]
        return rules + [(name, one) for name, found in self.elements.items() for one in found.values()]

    def _refers_to(self, name: str) -> bool:
        return any(name in pair for _, text in self._texts() for pair in _REFERENCE.findall(text))

    def _add_table(self, name: str, body: str, line: str) -> None:
        pass

    def _delete_table(self, name: str, body: str, line: str) -> None:
        for part in (self.counters, self.sets, self.elements, self.chains, self.hooks):
            part.clear()

    def _add_counter(self, name: str, body: str, line: str) -> None:
        assert name not in self.counters, line
        self.counters.add(name)

    def _add_set(self, name: str, body: str, line: str) -> None:
        assert name not in self.sets, line
        self.sets[name] = f"{line.split()[1]} {body}"
        self.elements[name] = {}

    def _add_chain(self, name: str, body: str, line: str) -> None:
        assert name not in self.chains, line
        self.chains[name] = []
        if body:
            self.hooks.add(name)

    def _add_element(self, name: str, body: str, line: str) -> None:
        for element in body.strip("{} ").split(", "):
            key = element.partition(" : ")[0]
            assert key not in self.elements[name], f"{name} has {key} already"
            self.elements[name][key] = element

    def _delete_element(self, name: str, body: str, line: str) -> None:
        for key in body.strip("{} ").split(", "):
            assert key in self.elements[name], f"{name} has no {key}"
            del self.elements[name][key]

    def _add_rule(self, name: str, body: str, line: str) -> None:
        self.chains[name].append(body)

    def _flush_chain(self, name: str, body: str, line: str) -> None:
        self.chains[name].clear()

    def _flush_set(self, name: str, body: str, line: str) -> None:
        self.elements[name].clear()

    def _delete_chain(self, name: str, body: str, line: str) -> None:
        assert not self.chains[name] and name not in self.hooks and not self._refers_to(name), line
        del self.chains[name]

    def _delete_set(self, name: str, body: str, line: str) -> None:
        assert not self._refers_to(name), line
        del self.sets[name], self.elements[name]
