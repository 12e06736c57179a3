"""Talks to nftables: by the `nft` program, and by netlink for the rules that it cannot write.

* Kernels without CONFIG_NFT_QUEUE still have xtables' NFQUEUE target, which nftables can use (nft_compat).
  The `nft` program lists such a rule and does not write it, so it is sent as the message that iptables-nft
  would send, but into our own table: the rules stay one table that is removed as a whole, and no other
  program's table is touched.
* A rule that adds an element to a map from the packet path, with a key of more than 16 bytes, makes nft
  1.0.6 (Debian 12) abort. The kernel takes it.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from l4lb.errors import CapabilityError, L4lbError
from l4lb.net.expressions import (
    DELETE,
    FIRST_REGISTER,
    META_L4PROTO,
    META_MARK,
    NETWORK_HEADER,
    TRANSPORT_HEADER,
    UPDATE,
    change_map,
    load_meta,
    load_payload,
)
from l4lb.net.netlink import (
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    build_attribute,
    build_message,
    build_nested,
    open_netfilter,
)

_NFNL_SUBSYS_NFTABLES = 10
_BATCH_BEGIN, _BATCH_END = 16, 17
_NEWTABLE, _NEWCHAIN, _NEWRULE = 0, 3, 6
_FAMILIES = {"inet": 1, "netdev": 5}
_NFQ_FLAG_BYPASS = 1
_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class LearningRule:
    """What `chain` does to the map `flows`, whose keys are source and destination address, protocol, source
    and destination port, and whose values are marks: it sets the packet's element, or with `forget` deletes
    it."""

    chain: str
    flows: str
    family: int
    forget: bool


def run_nft(script: str, *, check: bool = False) -> None:
    """Applies a script in one transaction, or with `check` asks the kernel whether it would take it.

    L4lbError with nft's first complaint; CapabilityError where the program or the privilege is missing.
    """
    if not script:
        return
    program = shutil.which("nft")
    if program is None:
        raise CapabilityError("nft: the program is missing; install the package nftables")
    command = [program, "--check", "--file", "-"] if check else [program, "--file", "-"]
    result = subprocess.run(command, input=script, capture_output=True, text=True, timeout=_TIMEOUT_S)
    if result.returncode == 0:
        return
    complaint = next(
        (line for line in result.stderr.splitlines() if line and line[0] != "#"), "no reason given"
    )
    if "Operation not permitted" in result.stderr:
        raise CapabilityError("nft: the kernel refuses; CAP_NET_ADMIN is missing, run as root")
    raise L4lbError(f"nft: {complaint}")


def table_exists(name: str, family: str = "inet") -> bool:
    """Whether the table `family name` is there. L4lbError where nft cannot tell."""
    program = shutil.which("nft")
    if program is None:
        raise CapabilityError("nft: the program is missing; install the package nftables")
    result = subprocess.run([program, "list", "tables"], capture_output=True, text=True, timeout=_TIMEOUT_S)
    if result.returncode:
        raise CapabilityError(f"nft: cannot list tables: {result.stderr.strip() or 'no reason given'}")
    return f"table {family} {name}" in result.stdout.splitlines()


def delete_table(name: str, family: str = "inet") -> bool:
    """Removes `family name` with all that is in it; false where it was not there."""
    if not table_exists(name, family):
        return False
    run_nft(f"delete table {family} {name}\n")
    return True


def read_counters(name: str) -> dict[str, int]:
    """Packets of every named counter of `inet name`; empty where there is no such table."""
    program = shutil.which("nft") or "nft"
    command = [program, "--json", "list", "counters", "table", "inet", name]
    result = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    if result.returncode:
        return {}
    entries = json.loads(result.stdout)["nftables"]
    return {e["counter"]["name"]: int(e["counter"]["packets"]) for e in entries if "counter" in e}


def read_element_counters(
    name: str, maps: Sequence[str], *, family: str = "inet", kind: str = "map"
) -> dict[str, dict[str, tuple[int, int]]]:
    """(packets, bytes) of every element of the named maps of `family name`, by map and key; a map that is
    not there is left out. With the `kind` set, of sets.

    The key is written as in the script that added it: parts joined by ` . `, ranges by `-`, marks as numbers.
    """
    program = shutil.which("nft") or "nft"
    found = {}
    for one in maps:
        command = [program, "--json", "--numeric", "list", kind, family, name, one]
        result = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
        if result.returncode == 0:
            found[one] = dict(_counted(json.loads(result.stdout)["nftables"]))
    return found


def _counted(entries: list[dict[str, Any]]) -> Iterator[tuple[str, tuple[int, int]]]:
    for entry in entries:
        keys = [key for key, _ in entry.get("map", {}).get("elem", ())]
        for key in (*keys, *entry.get("set", {}).get("elem", ())):
            if isinstance(key, dict) and "elem" in key:
                counter = key["elem"]["counter"]
                yield _key_text(key["elem"]["val"]), (int(counter["packets"]), int(counter["bytes"]))


def _key_text(value: Any) -> str:
    if isinstance(value, dict) and "concat" in value:
        return " . ".join(map(_key_text, value["concat"]))
    if isinstance(value, dict) and "range" in value:
        return "-".join(map(_key_text, value["range"]))
    return str(value)


def add_queue_rules(table: str, queues: dict[str, int]) -> None:
    """Gives each of the (empty) chains of `inet table` the rule that queues to its number."""
    rules = [
        _message(_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, index, _queue_rule(table, chain, number))
        for index, (chain, number) in enumerate(queues.items(), start=2)
    ]
    _batch(rules, "queueing through xtables' NFQUEUE target")


def add_learning_rules(table: str, rules: Sequence[LearningRule]) -> None:
    """Gives each of the (empty) chains of `inet table` the rule that updates or deletes the packet's flow."""
    messages = [
        _message(_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, index, _learning_rule(table, rule))
        for index, rule in enumerate(rules, start=2)
    ]
    _batch(messages, "learning flows")


def add_rules(family: str, table: str, rules: Sequence[tuple[str, bytes]], what: str) -> None:
    """Appends rules, each a chain and its expressions (`l4lb.net.expressions`), in one transaction."""
    messages = [
        _message(_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, index, _rule(table, chain, body), family)
        for index, (chain, body) in enumerate(rules, start=2)
    ]
    _batch(messages, what)


def can_queue_by_xtables() -> bool:
    """Whether the kernel takes the NFQUEUE target in a table of ours. Nothing is changed.

    The batch that asks has no end message, and the kernel undoes such a batch after checking it.
    """
    name = "l4lb_probe"
    messages = [
        _message(_NEWTABLE, NLM_F_CREATE, 2, build_attribute(1, name.encode() + b"\0")),
        _message(
            _NEWCHAIN,
            NLM_F_CREATE,
            3,
            build_attribute(1, name.encode() + b"\0") + build_attribute(3, b"probe\0"),
        ),
        _message(_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, 4, _queue_rule(name, "probe", 0)),
    ]
    try:
        _batch(messages, "probing", commit=False)
    except (L4lbError, OSError):
        return False
    return True


def _batch(messages: list[bytes], what: str, *, commit: bool = True) -> None:
    """Sends messages as one transaction and waits for the answer to each."""
    subsystem = _NFNL_SUBSYS_NFTABLES
    begin = build_message(_BATCH_BEGIN, 0, 1, 0, subsystem, b"")
    end = build_message(_BATCH_END, 0, len(messages) + 2, 0, subsystem, b"") if commit else b""
    with open_netfilter() as sock:
        sock.settimeout(_TIMEOUT_S)
        sock.sendto(begin + b"".join(messages) + end, (0, 0))
        waiting = len(messages)
        while waiting:
            answer = memoryview(sock.recv(65536))
            while len(answer) >= 20:
                length, kind, _, _, _ = struct.unpack_from("=IHHII", answer)
                if kind == 2:
                    (code,) = struct.unpack_from("=i", answer, 16)
                    if code:
                        raise L4lbError(f"nftables: {what}: {os.strerror(-code)}")
                    waiting -= 1
                answer = answer[(length + 3) & ~3 :]


def _message(kind: int, flags: int, sequence: int, body: bytes, family: str = "inet") -> bytes:
    return build_message(
        _NFNL_SUBSYS_NFTABLES << 8 | kind, flags | NLM_F_ACK, sequence, _FAMILIES[family], 0, body
    )


def _rule(table: str, chain: str, *expressions: bytes) -> bytes:
    """NFTA_RULE_*: where it goes, and what it is made of."""
    return (
        build_attribute(1, table.encode() + b"\0")
        + build_attribute(2, chain.encode() + b"\0")
        + build_nested(4, *expressions)
    )


def _queue_rule(table: str, chain: str, number: int) -> bytes:
    """NFTA_RULE_* with one expression: target NFQUEUE, revision 3, `struct xt_NFQ_info_v3` with the flag to
    bypass.

    Without a listener the packet then goes on undecided, to the rules that say what becomes of it.
    """
    info = struct.pack("=HHHxx", number, 1, _NFQ_FLAG_BYPASS)
    target = build_nested(
        2,
        build_attribute(1, b"NFQUEUE\0"),
        build_attribute(2, struct.pack(">I", 3)),
        build_attribute(3, info),
    )
    return _rule(table, chain, build_nested(1, build_attribute(1, b"target\0"), target))


def _learning_rule(table: str, rule: LearningRule) -> bytes:
    """NFTA_RULE_* that loads the key, a register of 4 bytes for each begun 4 bytes, then the mark, then
    `dynset`."""
    addresses, size = (12, 4) if rule.family == 4 else (8, 16)
    source, words = FIRST_REGISTER, size // 4
    destination = source + words
    protocol = destination + words
    mark = protocol + 3
    return _rule(
        table,
        rule.chain,
        load_payload(NETWORK_HEADER, addresses, size, source),
        load_payload(NETWORK_HEADER, addresses + size, size, destination),
        load_meta(META_L4PROTO, protocol),
        load_payload(TRANSPORT_HEADER, 0, 2, protocol + 1),
        load_payload(TRANSPORT_HEADER, 2, 2, protocol + 2),
        load_meta(META_MARK, mark),
        change_map(rule.flows, DELETE if rule.forget else UPDATE, source, mark),
    )
