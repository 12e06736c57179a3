"""How a backend is chosen for a new flow."""
from libc.stdint cimport uint32_t, uint64_t

from l4lb.dataplane.flowtable cimport FlowTable
from l4lb.dataplane.hashing cimport Key, scale
from l4lb.dataplane.nativetable cimport Rules, ServiceView
from l4lb.dataplane.packet cimport Packet


# The slot that the service's scheduler chooses; at least one backend must have weight. `table` knows the loads.
# The caller holds `rules.turns`.
cdef int choose(Rules* rules, const FlowTable* table, const Key* key, int service, uint64_t hash,
                const Packet* packet) noexcept nogil


cdef inline int look_up(const ServiceView* service, uint64_t hash) noexcept nogil:
    """The slot that consistent hashing gives: no state, and the same on every gateway."""
    return service.lookup[scale(<uint32_t>(hash >> 32), service.lookup_size)]
