"""How a backend is chosen for a new flow (docs/design/decision.md, section 4)."""

from __future__ import annotations

from array import array

from l4lb.dataplane.kernelhash import kernel_hash
from l4lb.dataplane.reference.counters import SharedCounters
from l4lb.dataplane.reference.hashing import scale, siphash
from l4lb.dataplane.reference.packet import Endpoint
from l4lb.dataplane.table import BackendEntry, ServiceEntry
from l4lb.model import Scheduler


class Choice:
    """The scheduler of one service. Only backends that have weight take part."""

    def __init__(self, service: ServiceEntry, key: bytes, shared: SharedCounters) -> None:
        self.backends = [backend for backend in service.backends if backend.weight > 0]
        self._scheduler = service.scheduler
        self._lookup = array("H", service.lookup)
        self._kernel_seed = service.kernel_seed
        self._key = key
        self._shared = shared
        weights = tuple((backend.slot, backend.weight) for backend in self.backends)
        self._turn = shared.turn(service.name, (service.scheduler, weights))

    def choose(self, hash_: int, client: Endpoint) -> int:
        """The slot for a new flow of `client`. At least one backend must have weight."""
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
            case Scheduler.SOURCE_HASH:
                return self.look_up(siphash(self._key, client.address), client)
            case Scheduler.MAGLEV:
                return self.look_up(hash_, client)

    def look_up(self, hash_: int, client: Endpoint) -> int:
        """The slot that consistent hashing gives: no state, and the same on every gateway.

        Where the hash is the kernel's it is of the client, as the rules see it.
        """
        number = hash_ >> 32
        if self._kernel_seed is not None:
            port = None if self._scheduler is Scheduler.SOURCE_HASH else client.port
            number = kernel_hash(self._kernel_seed, client.address, port)
        return self._lookup[scale(number, len(self._lookup))]

    def _round_robin(self) -> BackendEntry:
        chosen = self.backends[self._turn.cursor]
        self._turn.cursor = (self._turn.cursor + 1) % len(self.backends)
        return chosen

    def _weighted_round_robin(self) -> BackendEntry:
        """Smooth, as in nginx: weights 5, 1, 1 give a a b a c a a rather than a a a a a b c."""
        current = self._turn.current
        for i, backend in enumerate(self.backends):
            current[i] += backend.weight
        winner = current.index(max(current))
        current[winner] -= sum(backend.weight for backend in self.backends)
        return self.backends[winner]

    def _least_connections(self, *, weighted: bool) -> BackendEntry:
        """The least loaded. Equals are taken in turn, or the first would get every flow of a quiet time."""
        n = len(self.backends)
        best = self._turn.cursor
        for step in range(1, n):
            i = (self._turn.cursor + step) % n
            if self._lighter(self.backends[i], self.backends[best], weighted=weighted):
                best = i
        self._turn.cursor = (best + 1) % n
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
        one, other = self.backends[i], self.backends[j]
        return other if self._lighter(other, one, weighted=True) else one

    def _lighter(self, a: BackendEntry, b: BackendEntry, *, weighted: bool) -> bool:
        """Whether `a` would be less loaded than `b` with one more established flow on each."""
        load_a = self._shared.load(a.slot) + 256
        load_b = self._shared.load(b.slot) + 256
        return load_a * b.weight < load_b * a.weight if weighted else load_a < load_b
