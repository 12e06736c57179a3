"""Schedulers (docs/design/decision.md, section 4)."""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from l4lb.dataplane.nativetable cimport (
    BackendView,
    IN_ORDER,
    MAGLEV,
    POWER_OF_TWO,
    ROUND_ROBIN,
    SOURCE_HASH,
    WEIGHTED_LEAST_CONNECTIONS,
    WEIGHTED_ROUND_ROBIN,
)
from l4lb.dataplane.packet cimport dump_addr, swap16
from l4lb.dataplane.sources cimport source_hash

from l4lb.dataplane.custom import Candidate, NewFlow

cdef enum:
    TRIES = 16      # places that a hash names, before full backends are passed over in their order


cdef int choose(Rules* rules, const FlowTable* table, const Key* key, int service, uint64_t hash,
                const Packet* packet) noexcept nogil:
    cdef const ServiceView* view = rules.services + service
    cdef int turn
    if view.custom != NULL:
        turn = ask_custom(rules, table, view, hash, packet)
        if turn >= 0:
            return rules.slots[view.first + <uint32_t>turn]
    if view.scheduler == MAGLEV:
        return look_on(rules, table, view, number_of(view, hash, packet))
    if view.scheduler == SOURCE_HASH:
        hash = source_hash(key, &packet.source, packet.protocol)
        return look_on(rules, table, view, number_of(view, hash, packet))
    turn = take_turn(rules, table, service, hash)
    return turn if turn < 0 else rules.slots[view.first + <uint32_t>turn]


cdef int ask_custom(const Rules* rules, const FlowTable* table, const ServiceView* view, uint64_t hash,
                    const Packet* packet) noexcept with gil:
    """The number, among the backends with weight, that the user's scheduler chooses; -1 where it chooses none."""
    cdef const BackendView* backend
    cdef uint32_t i
    cdef uint16_t slot
    guard = <object>view.custom
    numbers = []
    candidates = []
    for i in range(view.count):
        slot = rules.slots[view.first + i]
        if not has_room(rules, table, slot):
            continue
        backend = rules.backends + slot
        numbers.append(i)
        candidates.append(Candidate(
            dump_addr(&backend.address, backend.family), swap16(backend.port_be), rules.weights[view.first + i],
            backend.max_connections, table.slot_flows[slot], table.slot_active[slot], table.slot_open[slot],
        ))
    if not candidates:
        return -1
    flow = NewFlow(
        dump_addr(&packet.source, packet.protocol), swap16(packet.sport_be),
        dump_addr(&packet.destination, packet.protocol), swap16(packet.dport_be), packet.protocol & 0x7F, hash,
    )
    picked = guard.foresee(flow, candidates) if rules.foresees else guard.pick(flow, candidates)
    return -1 if picked is None else numbers[picked]


cdef int look_on(const Rules* rules, const FlowTable* table, const ServiceView* view, uint32_t number) noexcept nogil:
    """The slot of the first place with room among those that the hash names one after another; -1 where none has.

    Not the next place: who follows whom in a Maglev table is far from even.
    """
    cdef int slot, i
    for i in range(TRIES):
        slot = view.lookup[scale(number, view.lookup_size)]
        if has_room(rules, table, slot):
            return slot
        number = <uint32_t>((number + <uint64_t>1) * <uint64_t>0x9E3779B97F4A7C15 >> 32)
    i = next_with_room(rules, table, view, scale(number, view.count))
    return i if i < 0 else rules.slots[view.first + <uint32_t>i]


cdef int next_with_room(const Rules* rules, const FlowTable* table, const ServiceView* view,
                        uint32_t first) noexcept nogil:
    """The number of the first backend with room from `first` on and round, or -1."""
    cdef uint32_t i, k
    for k in range(view.count):
        i = (first + k) % view.count
        if has_room(rules, table, rules.slots[view.first + i]):
            return <int>i
    return -1


cdef uint64_t load_of(const FlowTable* table, uint16_t slot) noexcept nogil:
    """What a backend would carry with one connection more. Counts of other workers may lag."""
    cdef int64_t flows = table.slot_flows[slot]
    cdef int64_t active = table.slot_active[slot]
    return <uint64_t>max(255 * active + flows + 256, 1)


cdef int take_turn(Rules* rules, const FlowTable* table, int service, uint64_t hash) noexcept nogil:
    """The number, among the backends with weight, that a scheduler chooses which looks at more than a hash; -1 where
    all are full."""
    cdef const ServiceView* view = rules.services + service
    cdef uint32_t* cursor = rules.cursors + service
    cdef int best
    if view.scheduler == IN_ORDER:
        return next_with_room(rules, table, view, 0)
    if view.scheduler == POWER_OF_TWO:
        return less_loaded_of_two(rules, table, view, hash)
    if view.scheduler == WEIGHTED_ROUND_ROBIN:
        return next_by_weight(rules, table, view)
    if view.scheduler == ROUND_ROBIN:
        best = next_with_room(rules, table, view, cursor[0])
    else:
        best = least_loaded(rules, table, view, cursor[0])
    if best >= 0:
        cursor[0] = (<uint32_t>best + 1) % view.count
    return best


cdef int next_by_weight(Rules* rules, const FlowTable* table, const ServiceView* view) noexcept nogil:
    cdef const uint32_t* weights = rules.weights + view.first
    cdef int64_t* currents = rules.currents + view.first
    cdef int64_t sum = 0
    cdef uint32_t i
    cdef int best = -1
    for i in range(view.count):
        if not has_room(rules, table, rules.slots[view.first + i]):
            continue
        sum += weights[i]
        currents[i] += weights[i]
        if best < 0 or currents[i] > currents[best]:
            best = <int>i
    if best >= 0:
        currents[best] -= sum
    return best


cdef int less_loaded_of_two(const Rules* rules, const FlowTable* table, const ServiceView* view,
                            uint64_t hash) noexcept nogil:
    cdef const uint16_t* slots = rules.slots + view.first
    cdef const uint32_t* weights = rules.weights + view.first
    cdef uint32_t i = scale(<uint32_t>(hash >> 32), view.count)
    cdef uint32_t j
    if view.count > 1:
        j = scale(<uint32_t>hash, view.count - 1)
        j += j >= i
        if has_room(rules, table, slots[j]) and (
            not has_room(rules, table, slots[i])
            or load_of(table, slots[j]) * weights[i] < load_of(table, slots[i]) * weights[j]
        ):
            return <int>j
    return next_with_room(rules, table, view, i)


cdef int least_loaded(const Rules* rules, const FlowTable* table, const ServiceView* view,
                      uint32_t first) noexcept nogil:
    """The first among equals from `first` on."""
    cdef const uint16_t* slots = rules.slots + view.first
    cdef const uint32_t* weights = rules.weights + view.first
    cdef bint weighted = view.scheduler == WEIGHTED_LEAST_CONNECTIONS
    cdef uint64_t load, weight
    cdef uint64_t least = 0
    cdef uint64_t least_weight = 0
    cdef uint32_t i, k
    cdef int best = -1
    for k in range(view.count):
        i = (first + k) % view.count
        if not has_room(rules, table, slots[i]):
            continue
        load = load_of(table, slots[i])
        weight = weights[i] if weighted else 1
        if best < 0 or load * least_weight < least * weight:
            best, least, least_weight = <int>i, load, weight
    return best
