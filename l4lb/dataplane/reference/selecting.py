"""Selections of flows, carried out plainly (`l4lb.dataplane.selection`)."""

from __future__ import annotations

from collections.abc import Iterable

from l4lb.dataplane.decision import Flow
from l4lb.dataplane.reference.flowtable import TICK_MS
from l4lb.dataplane.selection import Selected, Selection


def select(flows: Iterable[Flow], selection: Selection) -> Selected:
    """What `selection` asks of `flows`."""
    matching = [flow for flow in flows if _matches(flow, selection)]
    placed = [(selection.key_of(selection.place_of(flow)), flow) for flow in matching]
    placed.sort(key=lambda one: one[0], reverse=selection.descending)
    if selection.after is not None:
        end = selection.key_of(selection.after)
        placed = [one for one in placed if (one[0] < end if selection.descending else one[0] > end)]
    return Selected([flow for _, flow in placed[: selection.limit]], len(matching))


def _matches(flow: Flow, selection: Selection) -> bool:
    if selection.now_ms // TICK_MS * TICK_MS >= flow.expires_ms:
        return False
    if selection.slots is not None and not selection.slots[flow.slot]:
        return False
    if selection.state is not None and flow.state is not selection.state:
        return False
    if selection.network is None:
        return True
    address, length = selection.network
    rest = len(address) * 8 - length
    return len(flow.client) == len(address) and (
        int.from_bytes(flow.client) >> rest == int.from_bytes(address) >> rest
    )
