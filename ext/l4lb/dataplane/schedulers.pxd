"""How a backend is chosen for a new flow."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from l4lb.dataplane.flowtable cimport FlowTable
from l4lb.dataplane.hashing cimport Key, scale
from l4lb.dataplane.kernelhash cimport kernel_hash
from l4lb.dataplane.nativetable cimport SOURCE_HASH, Rules, ServiceView
from l4lb.dataplane.packet cimport Packet


# The slot that the service's scheduler chooses, or -1 where every backend is full; at least one must have weight.
# `table` knows the loads.
# The caller holds `rules.turns`.
cdef int choose(Rules* rules, const FlowTable* table, const Key* key, int service, uint64_t hash,
                const Packet* packet) noexcept nogil


cdef inline uint32_t number_of(const ServiceView* service, uint64_t hash, const Packet* packet) noexcept nogil:
    """What names a flow's place in `lookup`, by `scale`."""
    if service.shares_hash:
        return kernel_hash(service.kernel_seed, packet, service.scheduler == SOURCE_HASH)
    return <uint32_t>(hash >> 32)


cdef inline bint has_room(const Rules* rules, const FlowTable* table, int slot) noexcept nogil:
    """Whether a backend may have one connection more. Another worker may be about to give it one."""
    cdef uint32_t limit = rules.backends[slot].max_connections
    return limit == 0 or table.slot_open[slot] < <int64_t>limit


cdef inline int look_up(const ServiceView* service, uint64_t hash, const Packet* packet) noexcept nogil:
    """The slot that consistent hashing gives: no state, and the same on every gateway."""
    return service.lookup[scale(number_of(service, hash, packet), service.lookup_size)]
