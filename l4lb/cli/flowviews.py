"""Which flows the daemon shows, a page at a time: `l4lb flows ls` and `flows count`. Changes nothing.

A row has a cursor: where its flow stands in the order, by the flow's ends and the value that was sorted by.
The next page has what stands behind that, whatever became of the flow itself. So what is promised is:

* by client, listen and service, which do not change, a flow that lives while all pages are read is in exactly
  one of them; by backend too, unless it is moved to another meanwhile;
* by idle, expires, packets, bytes and state the same for a flow whose value did not change in between;
* a flow that comes or goes meanwhile is in one page or in none, and moves no other.
"""

from __future__ import annotations

import base64
import binascii
import bisect
import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from l4lb.cli.paging import DEFAULT_ROWS, DEFAULT_SORT, FILTERS, MOST_ROWS, PAGING
from l4lb.cli.views import Scene, flow_row, now_ms
from l4lb.control.endpoint import parse_endpoint
from l4lb.control.slots import Owner, SlotRegistry
from l4lb.dataplane.decision import State
from l4lb.dataplane.selection import Order, Place, Selection, merge
from l4lb.dataplane.table import MAX_SLOTS
from l4lb.errors import ConfigError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Sort:
    """How a word sorts. Where slots are ranked by their owners, `name` gives what by, and `key` sorts it."""

    order: Order
    descending: bool = False
    name: Callable[[Owner], str] | None = None
    key: Callable[[str], Any] = str


def _endpoint_key(backend: str) -> tuple[int, bytes, int]:
    """Backends in the order of their addresses, not of their names: 10.2.0.9 before 10.2.0.10."""
    address, port = parse_endpoint(backend)
    return address.version, address.packed, port or 0


SORTS: Mapping[str, _Sort] = {
    "client": _Sort(Order.CLIENT),
    "listen": _Sort(Order.LISTEN),
    "service": _Sort(Order.RANK, name=lambda owner: owner.service),
    "backend": _Sort(Order.RANK, name=lambda owner: owner.backend, key=_endpoint_key),
    "state": _Sort(Order.STATE),
    "expires": _Sort(Order.EXPIRES),
    "idle": _Sort(Order.SEEN),
    "packets": _Sort(Order.PACKETS, descending=True),
    "bytes": _Sort(Order.BYTES, descending=True),
}


@dataclass(frozen=True, slots=True)
class FlowPage:
    """Rows, and how many flows there are that the filters let through, on this page or not."""

    rows: Iterable[Json]
    matched: int


def flow_page(scene: Scene, query: Mapping[str, str]) -> FlowPage:
    """The page that a query asks for; ConfigError for one that makes no sense."""
    _refuse_unknown(query, (*FILTERS, *PAGING))
    word = query.get("sort", DEFAULT_SORT)
    if word not in SORTS:
        raise ConfigError(f"flows: cannot sort by {word}; there are {', '.join(SORTS)}")
    sort, ranks = SORTS[word], None
    if sort.name is not None:
        ranks = _Ranks(scene.slots, sort)
    reverse = query.get("reverse", "") not in ("", "0", "false")
    selection = Selection(
        limit=_limit(query.get("limit")),
        order=sort.order,
        descending=sort.descending != reverse,
        ranks=None if ranks is None else ranks.by_slot,
        after=_read_cursor(query["after"], word, reverse, ranks) if "after" in query else None,
        **_filters(scene, query),
    )
    parts = [worker.balancer.select(selection) for worker in scene.workers]
    found = merge(selection, parts)

    def rows() -> Iterator[Json]:
        for number, flow in found:
            place = selection.place_of(flow)
            # Ranks change with the configuration, names do not.
            value = place.value if ranks is None else ranks.name_of(flow.slot)
            row = flow_row(scene, flow, scene.workers[number].number, selection.now_ms)
            yield row | {"cursor": _write_cursor(word, reverse, value, place)}

    return FlowPage(rows(), sum(part.matched for part in parts))


def count_flows(scene: Scene, query: Mapping[str, str]) -> int:
    """How many living flows every filter lets through; ConfigError for one that makes no sense."""
    _refuse_unknown(query, FILTERS)
    selection = Selection(limit=0, **_filters(scene, query))
    return sum(worker.balancer.select(selection).matched for worker in scene.workers)


def _refuse_unknown(query: Mapping[str, str], known: Sequence[str]) -> None:
    if unknown := set(query) - set(known):
        raise ConfigError(f"flows: unknown filter {min(unknown)}; there are {', '.join(known)}")


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_ROWS
    if not text.isdecimal() or int(text) > MOST_ROWS:
        raise ConfigError(
            f"flows: limit {text!r} is not a number of rows up to {MOST_ROWS}; read page by page"
        )
    return int(text)


def _filters(scene: Scene, query: Mapping[str, str]) -> Json:
    """What the filters make of a selection."""
    state = query.get("state", "").upper().replace("-", "_")
    states = {one.name: one for one in State if one is not State.NONE}
    if state and state not in states:
        raise ConfigError(f"flows: unknown state {query['state']}; there are {', '.join(states).lower()}")
    return {
        "now_ms": now_ms(),
        "network": _network(query["client"]) if "client" in query else None,
        "slots": _slots(scene.slots, query.get("service"), query.get("backend")),
        "state": states.get(state),
        "timeouts": scene.table.timeouts,
    }


def _network(text: str) -> tuple[bytes, int]:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ConfigError(f"flows: client {text!r} is no address or network: {error}") from error
    return network.network_address.packed, network.prefixlen


def _slots(slots: SlotRegistry, service: str | None, backend: str | None) -> bytes | None:
    """A byte for each slot, 1 where it is the wanted service's and backend's."""
    if service is None and backend is None:
        return None
    wanted = bytearray(MAX_SLOTS)
    for slot, owner in slots.owners():
        wanted[slot] = service in (None, owner.service) and backend in (None, owner.backend)
    return bytes(wanted)


class _Ranks:
    """The rank of each slot by the name that is sorted by. Even numbers are left for names that are gone."""

    def __init__(self, slots: SlotRegistry, sort: _Sort) -> None:
        assert sort.name is not None
        self._key = sort.key
        self._names = {slot: sort.name(owner) for slot, owner in slots.owners()}
        self._keys = sorted({sort.key(name) for name in self._names.values()})
        found = array("I", bytes(4 * MAX_SLOTS))
        for slot, name in self._names.items():
            found[slot] = self.rank_of(name)
        self.by_slot = found.tobytes()

    def name_of(self, slot: int) -> str:
        return self._names[slot]

    def rank_of(self, name: str) -> int:
        """Also of a name that no slot has now. ValueError for what cannot be one."""
        key = self._key(name)
        at = bisect.bisect_left(self._keys, key)
        return 2 * at + 1 if at < len(self._keys) and self._keys[at] == key else 2 * at


def _write_cursor(word: str, reverse: bool, value: int | str, place: Place) -> str:
    _, client, client_port, vip, vip_port, protocol = place
    ends = [str(ip_address(client)), client_port, str(ip_address(vip)), vip_port, protocol]
    text = json.dumps([word, int(reverse), value, *ends], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(text: str, word: str, reverse: bool, ranks: _Ranks | None) -> Place:
    try:
        padded = text + "=" * (-len(text) % 4)
        sort, backwards, value, client, client_port, vip, vip_port, protocol = json.loads(
            base64.b64decode(padded, b"-_", validate=True)
        )
        if ranks is not None and sort == word:
            value = ranks.rank_of(value)
        ends = ip_address(client).packed, ip_address(vip).packed
        if len(ends[0]) != len(ends[1]) or not all(0 <= port < 1 << 16 for port in (client_port, vip_port)):
            raise ValueError("no flow has these ends")
        place = Place(int(value), ends[0], int(client_port), ends[1], int(vip_port), int(protocol) & 0x7F)
        if not -(1 << 63) <= place.value < 1 << 63:
            raise ValueError("a value is too large")
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise ConfigError(
            "flows: --after is no cursor of a page; take it as the page before gave it"
        ) from error
    if (sort, bool(backwards)) != (word, reverse):
        direction = " in reverse" if backwards else ""
        raise ConfigError(f"flows: --after is of a page sorted by {sort}{direction}; sort this one likewise")
    return place
