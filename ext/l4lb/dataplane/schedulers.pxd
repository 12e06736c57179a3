"""How a backend is chosen for a new flow."""
from libc.stdint cimport uint32_t, uint64_t

from l4lb.dataplane.flowtable cimport FlowTable
from l4lb.dataplane.hashing cimport Key, scale
from l4lb.dataplane.kernelhash cimport kernel_hash
from l4lb.dataplane.nativetable cimport SOURCE_HASH, Rules, ServiceView
from l4lb.dataplane.packet cimport Packet


# The slot that the service's scheduler chooses; at least one backend must have weight. `table` knows the loads.
# The caller holds `rules.turns`.
cdef int choose(Rules* rules, const FlowTable* table, const Key* key, int service, uint64_t hash,
                const Packet* packet) noexcept nogil


cdef inline int look_up(const ServiceView* service, uint64_t hash, const Packet* packet) noexcept nogil:
    """The slot that consistent hashing gives: no state, and the same on every gateway."""
    cdef uint32_t number = <uint32_t>(hash >> 32)
    if service.shares_hash:
        number = kernel_hash(service.kernel_seed, packet, service.scheduler == SOURCE_HASH)
    return service.lookup[scale(number, service.lookup_size)]
