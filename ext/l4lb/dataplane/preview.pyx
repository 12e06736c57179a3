"""Previews: the rules of `path` over again, without their effects."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from l4lb.dataplane.affinity cimport Client, affinity_slot, client_of
from l4lb.dataplane.carry cimport is_too_big
from l4lb.dataplane.core cimport OWNER_SERVICE
from l4lb.dataplane.flowrules cimport (
    IS_RESET,
    STAYS,
    Fate,
    fate_of,
    is_paced,
    is_remembered,
    is_served,
    is_tcp,
    key_to_service,
    refuse_to_begin,
)
from l4lb.dataplane.flowtable cimport (
    TICK_MS,
    table_count,
    table_count_crowded_out,
    table_has_room,
    table_number,
    table_peek,
    table_would_free_port,
)
from l4lb.dataplane.nativetable cimport (
    FORWARD_IPIP,
    FORWARD_MASQUERADE,
    BackendView,
    Rules,
    ServiceView,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from l4lb.dataplane.packet cimport FAMILY_IPV6, FLAG_SYN, Packet
from l4lb.dataplane.ports cimport NO_NUMBER, ports_find
from l4lb.dataplane.reasons cimport (
    REASON_AFFINITY,
    REASON_BACKENDS_FULL,
    REASON_FLOW,
    REASON_HASHED,
    REASON_LIMITED,
    REASON_NO_PORT,
    REASON_NOT_BALANCED,
    REASON_RESCHEDULED,
    REASON_RESET,
    REASON_SCHEDULED,
    REASON_STATELESS,
    REASON_TOO_BIG,
)
from l4lb.dataplane.schedulers cimport choose, has_room, look_up
from l4lb.dataplane.sources cimport sources_would_begin
from l4lb.dataplane.tcp cimport tcp_closing, tcp_opens


cdef const Flow* peek(Core* core, const Candidate* candidate) noexcept nogil:
    cdef Flow wanted
    if candidate.owner != OWNER_SERVICE:
        return NULL
    key_to_service(&wanted, &candidate.packet)
    return table_peek(&core.table, candidate.hash, &wanted)


cdef void preview(Core* core, Candidate* candidate, uint64_t now_ms, Outcome* outcome) noexcept nogil:
    cdef const Packet* packet = &candidate.packet
    cdef const ServiceView* service
    cdef const Flow* flow
    cdef Fate fate
    outcome.slot = -1
    outcome.mark = 0
    outcome.reason = candidate.reason
    if outcome.reason >= 0:
        return
    if candidate.owner != OWNER_SERVICE:
        outcome.reason = REASON_NOT_BALANCED
        return
    service = core.rules.services + candidate.service
    flow = peek(core, candidate)
    outcome.reason = REASON_SCHEDULED
    if flow != NULL and now_ms // TICK_MS < flow.deadline:
        if not is_served(core, flow, candidate.service):
            outcome.reason = REASON_RESCHEDULED
        elif (fate := fate_of(core, flow, packet)) != STAYS:
            outcome.reason = REASON_RESET if fate == IS_RESET else REASON_RESCHEDULED
            if fate == IS_RESET:
                return
        elif not (tcp_opens(packet.flags) and tcp_closing(flow.state)):
            outcome.reason = REASON_FLOW
            outcome.slot = flow.slot
    if outcome.slot < 0:
        preview_new_flow(core, candidate, flow, now_ms, outcome)
    if outcome.slot < 0 or service.forward < FORWARD_IPIP:
        return
    if is_too_big(core, candidate.service, outcome.slot, packet):
        outcome.reason = REASON_TOO_BIG
        outcome.slot = -1


cdef void preview_new_flow(Core* core, Candidate* candidate, const Flow* flow, uint64_t now_ms,
                           Outcome* outcome) noexcept nogil:
    """As `begin`; `flow` is what would have been removed before, or NULL."""
    cdef const Packet* packet = &candidate.packet
    cdef const ServiceView* service = core.rules.services + candidate.service
    cdef uint32_t tick = <uint32_t>(now_ms // TICK_MS)
    cdef uint8_t family = packet.protocol & FAMILY_IPV6
    cdef uint32_t removed = 0
    cdef bint remembered = is_remembered(service, packet)
    cdef int refused = refuse_to_begin(core, service, packet, now_ms)
    cdef bint kept = False
    cdef int slot
    if refused >= 0:
        outcome.reason = refused
        return
    if service.source_new_flows or service.source_flows:
        if flow != NULL and core.table.sources.numbers[flow.slot] == service.number:
            removed = 1
        if not sources_would_begin(core.table.sources, service, &packet.source, family, now_ms, removed):
            outcome.reason = REASON_LIMITED
            return
    if is_paced(core, service, packet, now_ms):
        outcome.reason = REASON_HASHED
        outcome.slot = look_up(service, candidate.hash, packet)
        return
    if remembered and flow == NULL and not table_has_room(&core.table, candidate.hash, tick):
        outcome.reason = REASON_NO_PORT
        if service.forward != FORWARD_MASQUERADE:
            outcome.reason = REASON_STATELESS
            outcome.slot = look_up(service, candidate.hash, packet)
        return
    if is_tcp(packet) and not packet.flags & FLAG_SYN:
        slot = look_up(service, candidate.hash, packet)
    else:
        slot = preview_schedule(core, candidate, flow, now_ms, &kept)
        if slot < 0:
            outcome.reason = REASON_BACKENDS_FULL
            return
        if kept and outcome.reason == REASON_SCHEDULED:
            outcome.reason = REASON_AFFINITY
    if service.forward == FORWARD_MASQUERADE and not would_have_port(core, candidate, flow, slot, tick):
        outcome.reason = REASON_NO_PORT
        return
    outcome.slot = slot


cdef int preview_schedule(Core* core, Candidate* candidate, const Flow* flow, uint64_t now_ms,
                          bint* kept) noexcept nogil:
    """As `schedule` in `path`; the scheduler and the client's affinity stay where they are."""
    cdef Rules* rules = core.rules
    cdef uint32_t tick = <uint32_t>(now_ms // TICK_MS)
    cdef int home = preview_affinity(core, candidate, now_ms)
    cdef int slot
    pthread_mutex_lock(&rules.turns)
    count_replaced(core, candidate, flow, tick, -1)
    kept[0] = home >= 0 and has_room(rules, &core.table, home)
    slot = home if kept[0] else preview_turn(core, candidate)
    count_replaced(core, candidate, flow, tick, 1)
    pthread_mutex_unlock(&rules.turns)
    return slot


cdef int preview_affinity(Core* core, const Candidate* candidate, uint64_t now_ms) noexcept nogil:
    """The slot of the client's last new flow, or -1."""
    cdef const ServiceView* service = core.rules.services + candidate.service
    cdef Client client
    cdef int slot
    if not service.has_affinity:
        return -1
    client = client_of(core.affinities, service, &candidate.packet)
    pthread_mutex_lock(&core.affinities.mutex)
    slot = affinity_slot(&client, core.rules, candidate.service, now_ms)
    pthread_mutex_unlock(&core.affinities.mutex)
    return slot


cdef int preview_turn(Core* core, const Candidate* candidate) noexcept nogil:
    """What the scheduler would choose, or -1; the caller holds `Rules.turns`."""
    cdef Rules* rules = core.rules
    cdef const ServiceView* service = rules.services + candidate.service
    cdef size_t size = service.count * sizeof(int64_t)
    cdef uint32_t cursor = rules.cursors[candidate.service]
    cdef int slot
    memcpy(rules.spare, rules.currents + service.first, size)
    rules.foresees = True
    slot = choose(rules, &core.table, &core.key, candidate.service, candidate.hash, &candidate.packet)
    rules.foresees = False
    rules.cursors[candidate.service] = cursor
    memcpy(rules.currents + service.first, rules.spare, size)
    return slot


cdef void count_replaced(Core* core, const Candidate* candidate, const Flow* flow, uint32_t tick,
                         int change) noexcept nogil:
    """Takes out of the loads, or puts back, what `decide` would have removed by now."""
    if flow != NULL:
        table_count(&core.table, flow, change)
    elif is_remembered(core.rules.services + candidate.service, &candidate.packet):
        table_count_crowded_out(&core.table, candidate.hash, tick, change)


cdef bint would_have_port(const Core* core, const Candidate* candidate, const Flow* flow, int slot,
                          uint32_t tick) noexcept nogil:
    cdef const BackendView* backend = core.rules.backends + slot
    cdef uint32_t size = core.table.ports.size
    cdef uint32_t first = backend.pool_first * size
    cdef uint32_t count = backend.pool_count * size
    if ports_find(&core.table.ports, backend.pool_first, backend.pool_count, candidate.hash) != NO_NUMBER:
        return True
    if flow != NULL:
        return first <= table_number(&core.table, flow) < <int64_t>first + count
    return table_would_free_port(&core.table, candidate.hash, tick, first, count)
