"""The rules of the fast path that the `nft` program cannot write: those that learn and forget a flow.

A key in `flowsN` is source and destination address, both ports in one word, and the protocol; its value is
the forward mark.
"""

from __future__ import annotations

from collections.abc import Iterator

from l4lb.control.elements import SIZES
from l4lb.control.rule_words import learning_chains
from l4lb.dataplane.table import MARK_MASK, MARK_PENDING
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
    mask_number,
)


def fast_rules() -> Iterator[tuple[str, bytes]]:
    """Chain and expressions of each rule, for `l4lb.net.nft.add_rules`."""
    for family in SIZES:
        learn, forget = learning_chains(family)
        yield learn, _change(family, UPDATE)
        # The value that an element is deleted with is not looked at, but has to be given.
        yield forget, _change(family, DELETE)


def _change(family: int, action: int) -> bytes:
    offset, size = (12, 4) if family == 4 else (8, 16)
    source = FIRST_REGISTER
    destination = source + size // 4
    ports = destination + size // 4
    mark = ports + 2
    return b"".join(
        [
            load_payload(NETWORK_HEADER, offset, size, source),
            load_payload(NETWORK_HEADER, offset + size, size, destination),
            load_payload(TRANSPORT_HEADER, 0, 4, ports),
            load_meta(META_L4PROTO, ports + 1),
            load_meta(META_MARK, mark),
            mask_number(mark, MARK_MASK & ~MARK_PENDING),
            change_map(f"flows{family}", action, source, mark),
        ]
    )
