"""How a backend is chosen for a new flow (docs/design/decision.md, section 4)."""

from __future__ import annotations

from array import array

from l4lb.dataplane.custom import Candidate, NewFlow
from l4lb.dataplane.kernelhash import kernel_hash
from l4lb.dataplane.reference.counters import SharedCounters
from l4lb.dataplane.reference.hashing import scale, siphash
from l4lb.dataplane.reference.packet import Endpoint
from l4lb.dataplane.table import BackendEntry, ServiceEntry
from l4lb.model import Scheduler

TRIES = 16
"""Places that a hash names, before full backends are passed over in their order."""


class Choice:
    """The scheduler of one service. Only backends that have weight take part."""

    def __init__(self, service: ServiceEntry, key: bytes, shared: SharedCounters) -> None:
        self.backends = [backend for backend in service.backends if backend.weight > 0]
        self._scheduler = service.scheduler
        self._limits = {backend.slot: backend.max_connections for backend in service.backends}
        self._lookup = array("H", service.lookup)
        self._custom = service.custom
        self._kernel_seed = service.kernel_seed
        self._key = key
        self._shared = shared
        weights = tuple((backend.slot, backend.weight) for backend in self.backends)
        self._turn = shared.turn(service.name, (service.scheduler, weights))

    def choose(self, hash_: int, client: Endpoint, flow: NewFlow) -> int | None:
        """The slot for a new flow of `client`, None where every backend is full. At least one backend must
        have weight."""
        if not any(self.has_room(backend.slot) for backend in self.backends):
            return None
        if self._custom is not None:
            numbers = self._from(0)
            picked = self._custom.pick(flow, [self._candidate(self.backends[i]) for i in numbers])
            if picked is not None:
                return self.backends[numbers[picked]].slot
        match self._scheduler:
            case Scheduler.ROUND_ROBIN:
                return self._round_robin().slot
            case Scheduler.WEIGHTED_ROUND_ROBIN:
                return self._weighted_round_robin().slot
            case Scheduler.LEAST_CONNECTIONS:
                return self._least_connections(weighted=False).slot
            case Scheduler.WEIGHTED_LEAST_CONNECTIONS:
                return self._least_connections(weighted=True).slot
            case Scheduler.POWER_OF_TWO:
                return self._power_of_two(hash_).slot
            case Scheduler.FAILOVER | Scheduler.OVERFLOW:
                return self.backends[self._from(0)[0]].slot
            case Scheduler.SOURCE_HASH:
                return self._look_on(siphash(self._key, client.address), client)
            case Scheduler.MAGLEV:
                return self._look_on(hash_, client)

    def _candidate(self, backend: BackendEntry) -> Candidate:
        counts = (
            self._shared.flows(backend.slot),
            self._shared.active(backend.slot),
            self._shared.open(backend.slot),
        )
        return Candidate(backend.address, backend.port, backend.weight, backend.max_connections, *counts)

    def has_room(self, slot: int) -> bool:
        """Whether the backend in `slot` may have one connection more."""
        limit = self._limits.get(slot, 0)
        return not limit or self._shared.open(slot) < limit

    def look_up(self, hash_: int, client: Endpoint) -> int:
        """The slot that consistent hashing gives: no state, and the same on every gateway."""
        return self._slot(self._number(hash_, client))

    def _number(self, hash_: int, client: Endpoint) -> int:
        """Where the kernel has the table, too, the hash is the one of the client that the rules have."""
        if self._kernel_seed is None:
            return hash_ >> 32
        port = None if self._scheduler is Scheduler.SOURCE_HASH else client.port
        return kernel_hash(self._kernel_seed, client.address, port)

    def _slot(self, number: int) -> int:
        return self._lookup[scale(number, len(self._lookup))]

    def _look_on(self, hash_: int, client: Endpoint) -> int:
        """As `look_up`; past full backends to the next place that the hash names, so that only their flows
        meet others. (Who follows whom in the table itself is far from even.)"""
        number = self._number(hash_, client)
        for _ in range(TRIES):
            if self.has_room(self._slot(number)):
                return self._slot(number)
            number = ((number + 1) * 0x9E37_79B9_7F4A_7C15 >> 32) % (1 << 32)
        return self.backends[self._from(scale(number, len(self.backends)))[0]].slot

    def _from(self, first: int) -> list[int]:
        """The numbers of the backends with room, in their order from `first` on and round."""
        n = len(self.backends)
        numbers = ((first + step) % n for step in range(n))
        return [i for i in numbers if self.has_room(self.backends[i].slot)]

    def _round_robin(self) -> BackendEntry:
        chosen = self._from(self._turn.cursor)[0]
        self._turn.cursor = (chosen + 1) % len(self.backends)
        return self.backends[chosen]

    def _weighted_round_robin(self) -> BackendEntry:
        """Smooth, as in nginx: weights 5, 1, 1 give a a b a c a a rather than a a a a a b c."""
        current, taking_part = self._turn.current, self._from(0)
        for i in taking_part:
            current[i] += self.backends[i].weight
        winner = max(taking_part, key=lambda i: current[i])
        current[winner] -= sum(self.backends[i].weight for i in taking_part)
        return self.backends[winner]

    def _least_connections(self, *, weighted: bool) -> BackendEntry:
        """The least loaded. Equals are taken in turn, or the first would get every flow of a quiet time."""
        best, *others = self._from(self._turn.cursor)
        for i in others:
            if self._lighter(self.backends[i], self.backends[best], weighted=weighted):
                best = i
        self._turn.cursor = (best + 1) % len(self.backends)
        return self.backends[best]

    def _power_of_two(self, hash_: int) -> BackendEntry:
        """The less loaded of two different backends that the hash picks (Mitzenmacher 2001)."""
        n = len(self.backends)
        if n == 1:
            return self.backends[0]
        i = scale(hash_ >> 32, n)
        j = scale(hash_ & 0xFFFF_FFFF, n - 1)
        if j >= i:
            j += 1
        picked = [self.backends[k] for k in (i, j) if self.has_room(self.backends[k].slot)]
        if not picked:
            return self.backends[self._from(i)[0]]
        if len(picked) == 1:
            return picked[0]
        one, other = picked
        return other if self._lighter(other, one, weighted=True) else one

    def _lighter(self, a: BackendEntry, b: BackendEntry, *, weighted: bool) -> bool:
        """Whether `a` would be less loaded than `b` with one more established flow on each."""
        load_a = self._shared.load(a.slot) + 256
        load_b = self._shared.load(b.slot) + 256
        return load_a * b.weight < load_b * a.weight if weighted else load_a < load_b
