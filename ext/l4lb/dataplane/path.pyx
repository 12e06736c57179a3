"""Decides packets (docs/design/decision.md). `decide` reads as the life of a packet.

The reference (`l4lb.dataplane.reference`) follows the same rules in Python; row and property tests hold
the two together byte for byte.
"""
from cpython.mem cimport PyMem_RawFree
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from l4lb.dataplane.affinity cimport Client, affinity_follows, affinity_set, affinity_slot, client_of
from l4lb.dataplane.carry cimport (
    answer_expired,
    answer_reset,
    answer_unreachable,
    forward,
    reply,
    reply_masqueraded,
)
from l4lb.dataplane.classify cimport classify_endpoint, refuse_to_send
from l4lb.dataplane.core cimport CARRY_VERDICT, OWNER_POOL, OWNER_SERVICE, SlotStats
from l4lb.dataplane.flowrules cimport (
    IS_RESET,
    STAYS,
    Fate,
    begins_unproven,
    fate_of,
    hash_flow,
    is_paced,
    is_remembered,
    is_served,
    is_tcp,
    key_from_backend,
    key_to_service,
    refuse_to_begin,
)
from l4lb.dataplane.flowtable cimport (
    TICK_MS,
    Flow,
    table_close,
    table_find,
    table_insert,
    table_open,
    table_place,
    table_remove,
    table_set_state,
)
from l4lb.dataplane.nativetable cimport (
    FORWARD_MASQUERADE,
    SLOTS,
    BackendView,
    FrontendView,
    SegmentView,
    ServiceView,
    pthread_mutex_destroy,
    pthread_mutex_t,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    zeros,
)
from l4lb.dataplane.packet cimport FAMILY_IPV6, FLAG_RST, FLAG_SYN, Packet, same_addr
from l4lb.dataplane.ports cimport NO_NUMBER, ports_find, ports_place, ports_take
from l4lb.dataplane.reasons cimport *
from l4lb.dataplane.schedulers cimport choose, has_room, look_up
from l4lb.dataplane.sources cimport sources_begin
from l4lb.dataplane.tcp cimport FROM_BACKEND, tcp_begin, tcp_closing, tcp_next, tcp_opens


cdef extern from *:
    """
    #include <pthread.h>

    /* The control plane holds it for microseconds: less than a sleep and a waking would take. So who finds it held
     * spins for a while first, where the C library can do that. */
    static void l4lb_open_mutex(pthread_mutex_t *mutex) {
        pthread_mutexattr_t attributes;
        pthread_mutexattr_init(&attributes);
    #ifdef PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP
        pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
    #endif
        pthread_mutex_init(mutex, &attributes);
        pthread_mutexattr_destroy(&attributes);
    }
    """
    void open_mutex "l4lb_open_mutex"(pthread_mutex_t* mutex) noexcept nogil


cdef int core_open(Core* core, uint64_t capacity, uint32_t first_port, uint32_t ports) except -1:
    open_mutex(&core.mutex)
    core.pace_second = ~<uint64_t>0
    core.rejected_second = ~<uint64_t>0
    core.slot_stats = <SlotStats*>zeros(SLOTS, sizeof(SlotStats))
    table_open(&core.table, capacity, first_port, ports)
    return 0


cdef void core_close(Core* core) noexcept nogil:
    table_close(&core.table)
    PyMem_RawFree(core.slot_stats)
    pthread_mutex_destroy(&core.mutex)


# The decision --------------------------------------------------------------------------------------

cdef void decide(Core* core, Candidate* candidate, bint rewrite, uint64_t now_ms, Outcome* outcome) noexcept nogil:
    cdef Flow* flow
    outcome.slot = -1
    outcome.mark = 0
    outcome.carry = CARRY_VERDICT
    outcome.reason = candidate.reason
    if outcome.reason < 0:
        if candidate.owner == OWNER_SERVICE:
            flow = flow_of(core, candidate, now_ms, outcome)
            if outcome.slot >= 0:
                forward(core, candidate, flow, rewrite, outcome)
        elif candidate.owner == OWNER_POOL:
            from_pool(core, candidate, rewrite, now_ms, outcome)
        else:
            from_endpoint(core, candidate, rewrite, now_ms, outcome)
    if outcome.reason == REASON_TTL_EXPIRED:
        answer_expired(&candidate.packet, outcome)
    core.reason_counts[outcome.reason] += 1


# To a service (section 3) --------------------------------------------------------------------------

cdef Flow* flow_of(Core* core, Candidate* candidate, uint64_t now_ms, Outcome* outcome) noexcept nogil:
    """Finds or begins the packet's flow; sets reason and slot. NULL where none is remembered."""
    cdef const Packet* packet = &candidate.packet
    cdef Flow wanted
    cdef Flow* flow
    cdef Fate fate
    cdef bint again = False
    key_to_service(&wanted, packet)
    flow = table_find(&core.table, candidate.hash, &wanted, <uint32_t>(now_ms // TICK_MS))
    if flow != NULL:
        if not is_served(core, flow, candidate.service):
            again = True
        elif (fate := fate_of(core, flow, packet)) != STAYS:
            if fate == IS_RESET:
                table_remove(&core.table, flow)
                outcome.reason = REASON_RESET
                answer_reset(packet, outcome)
                return NULL
            again = True
        elif not (tcp_opens(packet.flags) and tcp_closing(flow.state)):
            touch(core, flow, core.rules.services[candidate.service].seen, packet, now_ms)
            outcome.reason = REASON_FLOW
            outcome.slot = flow.slot
            return flow
        table_remove(&core.table, flow)
    return begin(core, candidate, &wanted, now_ms, again, outcome)


cdef void touch(Core* core, Flow* flow, int seen, const Packet* packet, uint64_t now_ms) noexcept nogil:
    """Renews a known flow's state and time; counts what comes from the client, the side always seen."""
    if flow.state == STATE_SYN_RECV:
        count_beginning(core.slot_stats + flow.slot, seen, packet)
    if flow.state != STATE_UDP:
        table_set_state(&core.table, flow, tcp_next(seen, packet.flags, flow.state))
    flow.deadline = <uint32_t>((now_ms + core.rules.timeout_ms[flow.state]) // TICK_MS)
    if seen != FROM_BACKEND:
        flow.packets += 1
        flow.bytes += packet.total


cdef void count_beginning(SlotStats* stats, int seen, const Packet* packet) noexcept nogil:
    """Whether a flow that has not begun does so by this packet, or the packet says that it does not."""
    if tcp_next(seen, packet.flags, STATE_SYN_RECV) == STATE_ESTABLISHED:
        stats.begun += 1
    elif seen == FROM_BACKEND:
        stats.failed += packet.flags & FLAG_RST != 0
    else:
        stats.failed += tcp_opens(packet.flags)


cdef void reject(Core* core, const Packet* packet, uint64_t now_ms, Outcome* outcome) noexcept nogil:
    if is_tcp(packet):
        answer_reset(packet, outcome)
        return
    if core.rejected_second != now_ms // 1000:
        core.rejected_second = now_ms // 1000
        core.rejected = 0
    core.rejected += 1
    answer_unreachable(packet, outcome)


cdef Flow* begin(Core* core, Candidate* candidate, Flow* flow, uint64_t now_ms, bint again,
                 Outcome* outcome) noexcept nogil:
    cdef const Packet* packet = &candidate.packet
    cdef const ServiceView* service = core.rules.services + candidate.service
    cdef const BackendView* backend
    cdef bint tcp = is_tcp(packet)
    cdef bint remembered = is_remembered(service, packet)
    cdef bint kept = False
    cdef int64_t number = NO_NUMBER
    cdef Flow* place = NULL
    cdef int slot
    outcome.reason = refuse_to_begin(core, service, packet, now_ms)
    if outcome.reason == REASON_REJECTED:
        reject(core, packet, now_ms, outcome)
    if outcome.reason >= 0:
        return NULL
    if service.source_new_flows or service.source_flows:
        if not sources_begin(core.table.sources, service, &packet.source, packet.protocol & FAMILY_IPV6, now_ms):
            outcome.reason = REASON_LIMITED
            return NULL
    if is_paced(core, service, packet, now_ms):
        outcome.reason = REASON_HASHED
        outcome.slot = look_up(service, candidate.hash, packet)
        return NULL
    if remembered:
        place = table_place(&core.table, candidate.hash, <uint32_t>(now_ms // TICK_MS))
    if remembered and place == NULL:
        outcome.reason = REASON_NO_PORT
        if service.forward != FORWARD_MASQUERADE:
            outcome.reason = REASON_STATELESS
            outcome.slot = look_up(service, candidate.hash, packet)
        return NULL
    if tcp and not packet.flags & FLAG_SYN:
        slot = look_up(service, candidate.hash, packet)
    else:
        slot = schedule(core, candidate, now_ms, &kept)
    if slot < 0:
        outcome.reason = REASON_BACKENDS_FULL
        return NULL
    flow.slot = <uint16_t>slot
    if service.forward == FORWARD_MASQUERADE:
        backend = core.rules.backends + flow.slot
        number = ports_find(&core.table.ports, backend.pool_first, backend.pool_count, candidate.hash)
        if number == NO_NUMBER:
            outcome.reason = REASON_NO_PORT
            return NULL
    outcome.slot = flow.slot
    outcome.reason = REASON_RESCHEDULED if again else (REASON_AFFINITY if kept else REASON_SCHEDULED)
    if not remembered:
        return NULL
    flow.state = tcp_begin(packet.flags) if tcp else STATE_UDP
    flow.deadline = <uint32_t>((now_ms + core.rules.timeout_ms[flow.state]) // TICK_MS)
    flow.packets = 1
    flow.bytes = packet.total
    table_insert(&core.table, place, candidate.hash, flow)
    if number != NO_NUMBER:
        ports_take(&core.table.ports, <uint32_t>number, <uint32_t>(place - core.table.flows))
    if begins_unproven(packet):
        if core.pace_second != now_ms // 1000:
            core.pace_second = now_ms // 1000
            core.pace_begun = 0
        core.pace_begun += 1
    return place


cdef int schedule(Core* core, const Candidate* candidate, uint64_t now_ms, bint* kept) noexcept nogil:
    """The slot for a new flow, or -1 where all are full; `kept` where it is that of the client's last one."""
    cdef const ServiceView* service = core.rules.services + candidate.service
    cdef Client client
    cdef int slot, home
    if not service.has_affinity:
        return take_turn(core, candidate)
    client = client_of(core.affinities, service, &candidate.packet)
    pthread_mutex_lock(&core.affinities.mutex)
    home = affinity_slot(&client, core.rules, candidate.service, now_ms)
    kept[0] = home >= 0 and has_room(core.rules, &core.table, home)
    slot = home if kept[0] else take_turn(core, candidate)
    if slot >= 0 and (home >= 0 or affinity_follows(core.rules, candidate.service, slot)):
        # Who finds his backend full goes elsewhere, and belongs there still.
        affinity_set(core.affinities, &client, <uint16_t>(home if home >= 0 else slot), now_ms,
                     now_ms + service.affinity_ms)
    pthread_mutex_unlock(&core.affinities.mutex)
    return slot


cdef int take_turn(Core* core, const Candidate* candidate) noexcept nogil:
    """The slot that the scheduler chooses, or -1 where all are full."""
    cdef int slot
    pthread_mutex_lock(&core.rules.turns)
    slot = choose(core.rules, &core.table, &core.key, candidate.service, candidate.hash, &candidate.packet)
    pthread_mutex_unlock(&core.rules.turns)
    return slot


# From a backend (section 5) ------------------------------------------------------------------------

cdef void from_pool(Core* core, Candidate* candidate, bint rewrite, uint64_t now_ms,
                    Outcome* outcome) noexcept nogil:
    """To a port of the pool. Where no flow has it, the packet may still be from an endpoint."""
    cdef Packet* packet = &candidate.packet
    cdef int64_t place = ports_place(&core.table.ports, candidate.number)
    cdef Flow* flow = NULL if place < 0 else core.table.flows + place
    if flow == NULL or not is_from_backend_of(core, packet, flow):
        classify_endpoint(core, candidate)
        outcome.reason = candidate.reason
        if outcome.reason < 0:
            from_endpoint(core, candidate, rewrite, now_ms, outcome)
        return
    outcome.reason = refuse_to_send(packet)
    if outcome.reason >= 0:
        return
    if now_ms // TICK_MS >= flow.deadline:
        table_remove(&core.table, flow)
        outcome.reason = REASON_NOT_BALANCED
        return
    touch(core, flow, FROM_BACKEND, packet, now_ms)
    outcome.reason = REASON_REPLY
    reply_masqueraded(core, packet, flow, outcome)


cdef bint is_from_backend_of(const Core* core, const Packet* packet, const Flow* flow) noexcept nogil:
    """Whether the packet is what the flow's backend would send to the flow's masquerade port."""
    cdef const BackendView* backend
    if flow.slot >= core.rules.slots_end or packet.protocol != flow.protocol:
        return False
    backend = core.rules.backends + flow.slot
    return (
        backend.service >= 0
        and backend.family == packet.protocol & FAMILY_IPV6
        and same_addr(&backend.address, &packet.source)
        and packet.sport_be == (backend.port_be if backend.port_be else flow.vip_port_be)
    )


cdef void from_endpoint(Core* core, Candidate* candidate, bint rewrite, uint64_t now_ms,
                        Outcome* outcome) noexcept nogil:
    cdef Packet* packet = &candidate.packet
    cdef const SegmentView* segment = core.rules.segments + candidate.segment
    cdef const FrontendView* first = core.rules.frontends + segment.first_frontend
    cdef const FrontendView* frontend = first
    cdef Flow* flow = find_reply(core, candidate, now_ms, &frontend)
    outcome.reason = REASON_REPLY
    if flow == NULL:
        if segment.count > 1:
            outcome.reason = REASON_REPLY_UNMATCHED
            return
        outcome.reason = REASON_REPLY_STATIC
    reply(core, packet, frontend, rewrite, outcome)


cdef Flow* find_reply(Core* core, const Candidate* candidate, uint64_t now_ms,
                      const FrontendView** frontend) noexcept nogil:
    """The flow that an answer belongs to, renewed, and its frontend; or NULL."""
    cdef const SegmentView* segment = core.rules.segments + candidate.segment
    cdef const FrontendView* first = core.rules.frontends + segment.first_frontend
    cdef Flow wanted
    cdef Flow* flow
    cdef uint64_t hash = candidate.hash
    cdef uint32_t i
    for i in range(segment.count):
        key_from_backend(&wanted, &candidate.packet, first + i)
        if i:
            hash = hash_flow(&core.key, &wanted)
        flow = table_find(&core.table, hash, &wanted, <uint32_t>(now_ms // TICK_MS))
        if flow != NULL and flow.slot == first[i].slot:
            touch(core, flow, FROM_BACKEND, &candidate.packet, now_ms)
            frontend[0] = first + i
            return flow
    return NULL
