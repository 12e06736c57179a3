"""Schedulers (docs/design/decision.md, section 4)."""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from l4lb.dataplane.nativetable cimport (
    LEAST_CONNECTIONS,
    MAGLEV,
    POWER_OF_TWO,
    ROUND_ROBIN,
    SOURCE_HASH,
    WEIGHTED_ROUND_ROBIN,
)
from l4lb.dataplane.sources cimport source_hash


cdef int choose(Rules* rules, const FlowTable* table, const Key* key, int service, uint64_t hash,
                const Packet* packet) noexcept nogil:
    cdef const ServiceView* view = rules.services + service
    if view.scheduler == MAGLEV:
        return look_up(view, hash, packet)
    if view.scheduler == SOURCE_HASH:
        return look_up(view, source_hash(key, &packet.source, packet.protocol), packet)
    return rules.slots[view.first + take_turn(rules, table, service, hash)]


cdef uint64_t load_of(const FlowTable* table, uint16_t slot) noexcept nogil:
    """What a backend would carry with one connection more. Counts of other workers may lag."""
    cdef int64_t flows = table.slot_flows[slot]
    cdef int64_t active = table.slot_active[slot]
    return <uint64_t>max(255 * active + flows + 256, 1)


cdef int take_turn(Rules* rules, const FlowTable* table, int service, uint64_t hash) noexcept nogil:
    """The place, among the backends with weight, that a scheduler chooses which looks at more than a hash."""
    cdef const ServiceView* view = rules.services + service
    cdef const uint16_t* slots = rules.slots + view.first
    cdef const uint32_t* weights = rules.weights + view.first
    cdef int64_t* currents = rules.currents + view.first
    cdef uint32_t* cursor = rules.cursors + service
    cdef uint32_t n = view.count
    cdef uint32_t best = 0
    cdef uint32_t i, k
    cdef uint64_t load, least, weight
    if view.scheduler == ROUND_ROBIN:
        best = cursor[0] % n
        cursor[0] = (best + 1) % n
    elif view.scheduler == WEIGHTED_ROUND_ROBIN:
        for i in range(n):
            currents[i] += weights[i]
            if currents[i] > currents[best]:
                best = i
        currents[best] -= <int64_t>view.weight
    elif view.scheduler == POWER_OF_TWO:
        if n > 1:
            best = scale(<uint32_t>(hash >> 32), n)
            i = scale(<uint32_t>hash, n - 1)
            if i >= best:
                i += 1
            if load_of(table, slots[i]) * weights[best] < load_of(table, slots[best]) * weights[i]:
                best = i
    else:
        least = 0
        weight = 0
        for k in range(n):
            i = (cursor[0] + k) % n
            load = load_of(table, slots[i])
            if view.scheduler == LEAST_CONNECTIONS:
                if k == 0 or load < least:
                    best, least = i, load
            elif k == 0 or load * weight < least * weights[i]:
                best, least, weight = i, load, weights[i]
        cursor[0] = (best + 1) % n
    return best
