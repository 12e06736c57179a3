"""Decides packets (docs/design/decision.md). `classify` and `decide_candidate` read as the life of a packet.

The reference (`l4lb.dataplane.reference`) follows the same rules in Python; row and property tests hold
the two together byte for byte.
"""
from cpython.mem cimport PyMem_RawFree
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from l4lb.dataplane.flowtable cimport (
    GROUP,
    TICK_MS,
    Flow,
    table_close,
    table_count,
    table_count_crowded_out,
    table_expire,
    table_find,
    table_has_room,
    table_insert,
    table_open,
    table_peek,
    table_place,
    table_prefetch_flow,
    table_prefetch_tags,
    table_remove,
    table_set_state,
)
from l4lb.dataplane.hashing cimport load_key, scale, sip_ipv4, sip_words
from l4lb.dataplane.nativetable cimport (
    LEAST_CONNECTIONS,
    MAGLEV,
    POWER_OF_TWO,
    ROUND_ROBIN,
    SLOTS,
    SOURCE_HASH,
    WEIGHTED_ROUND_ROBIN,
    BackendView,
    FrontendView,
    NativeTable,
    SegmentView,
    ServiceView,
    find_value,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    zeros,
)
from l4lb.dataplane.packet cimport (
    FAMILY_IPV6,
    PROTO_TCP,
    dump_addr,
    parse,
    rewrite_destination,
    rewrite_source,
    swap16,
)
from l4lb.dataplane.reasons cimport *
from l4lb.dataplane.tcp cimport (
    FROM_BACKEND,
    tcp_begin,
    tcp_cannot_begin,
    tcp_closing,
    tcp_next,
    tcp_opens,
)

from l4lb.dataplane import decision as words
from l4lb.dataplane.table import MARK_DECIDED, MARK_REPLY

cdef enum:
    BATCH = 16
    FORWARD_MARK = 0x40000000
    REPLY_MARK = 0x40080000

assert (FORWARD_MARK, REPLY_MARK) == (MARK_DECIDED, MARK_DECIDED | MARK_REPLY)


cdef class SharedCounters:
    def __cinit__(self):
        self.slot_flows = <int*>zeros(SLOTS, sizeof(int))
        self.slot_active = <int*>zeros(SLOTS, sizeof(int))

    def __dealloc__(self):
        PyMem_RawFree(self.slot_flows)
        PyMem_RawFree(self.slot_active)

    def flows(self, uint16_t slot):
        return self.slot_flows[slot]

    def active(self, uint16_t slot):
        return self.slot_active[slot]


cdef inline void key_to_service(Flow* key, const Packet* packet) noexcept nogil:
    key.client = packet.source
    key.vip = packet.destination
    key.client_port_be = packet.sport_be
    key.vip_port_be = packet.dport_be
    key.protocol = packet.protocol


cdef inline void key_from_backend(Flow* key, const Packet* packet, const FrontendView* frontend) noexcept nogil:
    key.client = packet.destination
    key.vip = frontend.address
    key.client_port_be = packet.dport_be
    key.vip_port_be = frontend.port_be if frontend.port_be else packet.sport_be
    key.protocol = packet.protocol


# The balancer ---------------------------------------------------------------------------------------

cdef class Balancer:
    def __cinit__(self, *, capacity, bytes key not None, SharedCounters shared=None):
        pthread_mutex_init(&self.mutex, NULL)
        self.key = load_key(key)
        self.shared = shared if shared is not None else SharedCounters()
        self.slot_stats = <SlotStats*>zeros(SLOTS, sizeof(SlotStats))
        table_open(&self.table, capacity)
        self.table.slot_flows = self.shared.slot_flows
        self.table.slot_active = self.shared.slot_active

    def __dealloc__(self):
        table_close(&self.table)
        PyMem_RawFree(self.slot_stats)
        pthread_mutex_destroy(&self.mutex)

    cdef void lock(self) noexcept nogil:
        pthread_mutex_lock(&self.mutex)

    cdef void unlock(self) noexcept nogil:
        pthread_mutex_unlock(&self.mutex)

    @property
    def capacity(self):
        return self.table.groups * GROUP

    def publish(self, table):
        """Decide by `table`, a `Table` or a `NativeTable` made of one, from the next packet on."""
        new = table if isinstance(table, NativeTable) else NativeTable(table, self.rules)
        old = self.rules
        self.lock()
        self.rules = new
        self.unlock()
        del old  # not while the lock is held: it may be a large table

    # One packet ----------------------------------------------------------------------------------

    cdef void classify(self, Candidate* candidate, uint8_t* data, uint32_t have, uint32_t length,
                       bint checksum_ready, bint gso, bint rewrite) noexcept nogil:
        """Whose packet is it? (Sections 1 and 2.)"""
        cdef Packet* packet = &candidate.packet
        cdef Flow key
        cdef int segment
        candidate.reason = parse(packet, data, have, length, checksum_ready, gso)
        if candidate.reason >= 0:
            return
        if rewrite and packet.total > have:
            candidate.reason = REASON_TRUNCATED
            return
        candidate.service = find_value(&self.rules.vips, &packet.destination, packet.protocol,
                                       swap16(packet.dport_be))
        if candidate.service >= 0:
            key_to_service(&key, packet)
        else:
            segment = find_value(&self.rules.endpoints, &packet.source, packet.protocol,
                                 swap16(packet.sport_be))
            if segment < 0:
                candidate.reason = REASON_NOT_BALANCED
                return
            candidate.segment = segment
            key_from_backend(&key, packet,
                             self.rules.frontends + self.rules.segments[segment].first_frontend)
        candidate.hash = self.hash_flow(&key)
        table_prefetch_tags(&self.table, candidate.hash)

    cdef void warm(self, const Candidate* candidate) noexcept nogil:
        if candidate.reason < 0:
            table_prefetch_flow(&self.table, candidate.hash)

    cdef void decide_candidate(self, Candidate* candidate, bint rewrite, uint64_t now_ms,
                               Outcome* outcome) noexcept nogil:
        cdef Packet* packet = &candidate.packet
        cdef const FrontendView* frontend = NULL
        cdef BackendView* backend
        cdef SlotStats* stats
        outcome.slot = -1
        outcome.mark = 0
        outcome.reason = candidate.reason
        if outcome.reason < 0:
            if candidate.service >= 0:
                outcome.reason = self.to_service(candidate, now_ms, outcome)
            else:
                outcome.reason = self.from_backend(candidate, now_ms, outcome, &frontend)
        self.reason_counts[outcome.reason] += 1
        if outcome.slot < 0:
            return
        stats = self.slot_stats + outcome.slot
        if frontend == NULL:
            stats.packets_in += 1
            stats.bytes_in += packet.total
            outcome.mark = FORWARD_MARK | <uint32_t>(outcome.slot + 1)
            if rewrite:
                backend = self.rules.backends + outcome.slot
                rewrite_destination(packet, &backend.address, backend.port_be)
        else:
            stats.packets_out += 1
            stats.bytes_out += packet.total
            outcome.mark = REPLY_MARK | (frontend.index + 1)
            if rewrite:
                rewrite_source(packet, &frontend.address, frontend.port_be)

    cdef int to_service(self, Candidate* candidate, uint64_t now_ms, Outcome* outcome) noexcept nogil:
        cdef const Packet* packet = &candidate.packet
        cdef Flow wanted
        cdef Flow* flow
        cdef bint again = False
        key_to_service(&wanted, packet)
        flow = table_find(&self.table, candidate.hash, &wanted, <uint32_t>(now_ms // TICK_MS))
        if flow != NULL:
            if flow.slot >= self.rules.slots_end or (
                self.rules.backends[flow.slot].service != candidate.service
            ):
                again = True
            elif not (tcp_opens(packet.flags) and tcp_closing(flow.state)):
                self.touch(flow, self.rules.seen_client, packet, now_ms)
                outcome.slot = flow.slot
                return REASON_FLOW
            table_remove(&self.table, flow)
        return self.new_flow(candidate, &wanted, now_ms, again, outcome)

    cdef int new_flow(self, Candidate* candidate, Flow* flow, uint64_t now_ms, bint again,
                      Outcome* outcome) noexcept nogil:
        cdef const Packet* packet = &candidate.packet
        cdef const ServiceView* service = self.rules.services + candidate.service
        cdef bint tcp = packet.protocol & 0x7F == PROTO_TCP
        cdef Flow* place
        if tcp and tcp_cannot_begin(packet.flags):
            return REASON_NO_FLOW
        if service.count == 0:
            return REASON_NO_BACKEND
        place = table_place(&self.table, candidate.hash, <uint32_t>(now_ms // TICK_MS))
        if place == NULL:
            outcome.slot = service.lookup[scale(<uint32_t>(candidate.hash >> 32), service.lookup_size)]
            return REASON_STATELESS
        pthread_mutex_lock(&self.rules.turns)
        outcome.slot = self.choose(candidate.service, candidate.hash, packet)
        pthread_mutex_unlock(&self.rules.turns)
        flow.slot = <uint16_t>outcome.slot
        flow.state = tcp_begin(packet.flags) if tcp else STATE_UDP
        flow.deadline = <uint32_t>((now_ms + self.rules.timeout_ms[flow.state]) // TICK_MS)
        flow.packets = 1
        flow.bytes = packet.total
        table_insert(&self.table, place, candidate.hash, flow)
        self.slot_stats[outcome.slot].scheduled += 1
        return REASON_RESCHEDULED if again else REASON_SCHEDULED

    cdef int from_backend(self, Candidate* candidate, uint64_t now_ms, Outcome* outcome,
                          const FrontendView** frontend) noexcept nogil:
        cdef const SegmentView* segment = self.rules.segments + candidate.segment
        cdef const FrontendView* first = self.rules.frontends + segment.first_frontend
        cdef Flow wanted
        cdef Flow* flow
        cdef uint64_t hash = candidate.hash
        cdef uint32_t i
        for i in range(segment.count):
            key_from_backend(&wanted, &candidate.packet, first + i)
            if i:
                hash = self.hash_flow(&wanted)
            flow = table_find(&self.table, hash, &wanted, <uint32_t>(now_ms // TICK_MS))
            if flow != NULL and flow.slot == first[i].slot:
                self.touch(flow, FROM_BACKEND, &candidate.packet, now_ms)
                outcome.slot = flow.slot
                frontend[0] = first + i
                return REASON_REPLY
        if segment.count > 1:
            return REASON_REPLY_UNMATCHED
        frontend[0] = first
        outcome.slot = first.slot
        return REASON_REPLY_STATIC

    cdef void preview_candidate(self, Candidate* candidate, uint64_t now_ms, Outcome* outcome) noexcept nogil:
        """What `decide_candidate` would answer for a packet to a service, with nothing changed."""
        cdef const Packet* packet = &candidate.packet
        cdef uint32_t tick = <uint32_t>(now_ms // TICK_MS)
        cdef const ServiceView* service
        cdef const Flow* flow
        cdef Flow wanted
        cdef uint32_t cursor
        outcome.slot = -1
        outcome.mark = 0
        outcome.reason = candidate.reason
        if outcome.reason >= 0:
            return
        if candidate.service < 0:
            outcome.reason = REASON_NOT_BALANCED
            return
        service = self.rules.services + candidate.service
        key_to_service(&wanted, packet)
        flow = table_peek(&self.table, candidate.hash, &wanted)
        outcome.reason = REASON_SCHEDULED
        if flow != NULL and tick < flow.deadline:
            if flow.slot >= self.rules.slots_end or (
                self.rules.backends[flow.slot].service != candidate.service
            ):
                outcome.reason = REASON_RESCHEDULED
            elif not (tcp_opens(packet.flags) and tcp_closing(flow.state)):
                outcome.reason = REASON_FLOW
                outcome.slot = flow.slot
                return
        if packet.protocol & 0x7F == PROTO_TCP and tcp_cannot_begin(packet.flags):
            outcome.reason = REASON_NO_FLOW
        elif service.count == 0:
            outcome.reason = REASON_NO_BACKEND
        elif flow == NULL and not table_has_room(&self.table, candidate.hash, tick):
            outcome.reason = REASON_STATELESS
            outcome.slot = service.lookup[scale(<uint32_t>(candidate.hash >> 32), service.lookup_size)]
        else:
            pthread_mutex_lock(&self.rules.turns)
            cursor = self.rules.cursors[candidate.service]
            memcpy(self.rules.spare, self.rules.currents + service.first, service.count * sizeof(int64_t))
            self.count_replaced(candidate.hash, flow, tick, -1)
            outcome.slot = self.choose(candidate.service, candidate.hash, packet)
            self.count_replaced(candidate.hash, flow, tick, 1)
            self.rules.cursors[candidate.service] = cursor
            memcpy(self.rules.currents + service.first, self.rules.spare, service.count * sizeof(int64_t))
            pthread_mutex_unlock(&self.rules.turns)

    cdef void count_replaced(self, uint64_t hash, const Flow* flow, uint32_t tick, int change) noexcept nogil:
        """Takes out of the loads, or puts back, what `decide_candidate` would have removed by now."""
        if flow != NULL:
            table_count(&self.table, flow, change)
        else:
            table_count_crowded_out(&self.table, hash, tick, change)

    cdef void touch(self, Flow* flow, int seen, const Packet* packet, uint64_t now_ms) noexcept nogil:
        """Renews a known flow's state and time; counts what comes from the client, the side always seen."""
        if flow.state != STATE_UDP:
            table_set_state(&self.table, flow, tcp_next(seen, packet.flags, flow.state))
        flow.deadline = <uint32_t>((now_ms + self.rules.timeout_ms[flow.state]) // TICK_MS)
        if seen != FROM_BACKEND:
            flow.packets += 1
            flow.bytes += packet.total

    cdef uint64_t hash_flow(self, const Flow* flow) noexcept nogil:
        cdef uint64_t message[5]
        cdef uint64_t ports = flow.client_port_be | <uint64_t>flow.vip_port_be << 16
        ports |= <uint64_t>(flow.protocol & 0x7F) << 32
        if flow.protocol & FAMILY_IPV6:
            message[0] = flow.client.hi
            message[1] = flow.client.lo
            message[2] = flow.vip.hi
            message[3] = flow.vip.lo
            message[4] = ports
            return sip_words(&self.key, message, 5)
        message[0] = flow.client.lo | flow.vip.lo << 32
        message[1] = ports
        return sip_words(&self.key, message, 2)

    # Schedulers (section 4) ----------------------------------------------------------------------

    cdef uint64_t load(self, uint16_t slot) noexcept nogil:
        """What a backend would carry with one connection more. Counts of other workers may lag."""
        cdef int64_t flows = self.table.slot_flows[slot]
        cdef int64_t active = self.table.slot_active[slot]
        return <uint64_t>max(255 * active + flows + 256, 1)

    cdef int choose(self, int service, uint64_t hash, const Packet* packet) noexcept nogil:
        """The slot for a new flow. The caller holds `turns`."""
        cdef const ServiceView* view = self.rules.services + service
        if view.scheduler == SOURCE_HASH:
            if packet.protocol & FAMILY_IPV6:
                hash = sip_words(&self.key, <const uint64_t*>&packet.source, 2)
            else:
                hash = sip_ipv4(&self.key, <uint32_t>packet.source.lo)
        if view.scheduler == MAGLEV or view.scheduler == SOURCE_HASH:
            return view.lookup[scale(<uint32_t>(hash >> 32), view.lookup_size)]
        return self.rules.slots[view.first + self.take_turn(service, hash)]

    cdef int take_turn(self, int service, uint64_t hash) noexcept nogil:
        """The place, among the backends with weight, that a scheduler chooses which looks at more than a hash."""
        cdef const ServiceView* view = self.rules.services + service
        cdef const uint16_t* slots = self.rules.slots + view.first
        cdef const uint32_t* weights = self.rules.weights + view.first
        cdef int64_t* currents = self.rules.currents + view.first
        cdef uint32_t* cursor = self.rules.cursors + service
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
                if self.load(slots[i]) * weights[best] < self.load(slots[best]) * weights[i]:
                    best = i
        else:
            least = 0
            weight = 0
            for k in range(n):
                i = (cursor[0] + k) % n
                load = self.load(slots[i])
                if view.scheduler == LEAST_CONNECTIONS:
                    if k == 0 or load < least:
                        best, least = i, load
                elif k == 0 or load * weight < least * weights[i]:
                    best, least, weight = i, load, weights[i]
            cursor[0] = (best + 1) % n
        return best

    # For Python ----------------------------------------------------------------------------------

    def decide(self, bytes packet not None, uint64_t now_ms, *, length=None, bint checksum_ready=True,
               bint gso=False, bint rewrite=True):
        cdef Candidate candidate
        cdef Outcome outcome
        cdef uint32_t have = len(packet)
        cdef uint32_t whole = have if length is None else length
        if self.rules is None:
            raise RuntimeError("no table was published")
        copy = bytearray(packet)
        cdef uint8_t* data = copy
        with nogil:
            self.lock()
            self.classify(&candidate, data, have, whole, checksum_ready, gso, rewrite)
            self.decide_candidate(&candidate, rewrite, now_ms, &outcome)
            self.unlock()
        forward = verdict_of(outcome.reason) == VERDICT_FORWARD
        return words.Decision(
            words.Verdict(<int>verdict_of(outcome.reason)),
            words.Reason(outcome.reason),
            outcome.slot,
            outcome.mark,
            bytes(copy) if forward and rewrite else None,
        )

    def preview(self, bytes packet not None, uint64_t now_ms):
        """The decision that a whole packet to a service would get, with nothing changed or counted."""
        cdef Candidate candidate
        cdef Outcome outcome
        if self.rules is None:
            raise RuntimeError("no table was published")
        copy = bytearray(packet)
        cdef uint8_t* data = copy
        cdef uint32_t have = len(packet)
        with nogil:
            self.lock()
            self.classify(&candidate, data, have, have, True, False, False)
            self.preview_candidate(&candidate, now_ms, &outcome)
            self.unlock()
        return words.Decision(words.Verdict(<int>verdict_of(outcome.reason)), words.Reason(outcome.reason),
                              outcome.slot, 0, None)

    def find(self, bytes packet not None, uint64_t now_ms):
        """The flow that a whole packet to a service belongs to, or None."""
        cdef Candidate candidate
        cdef Flow wanted
        cdef const Flow* flow = NULL
        if self.rules is None:
            raise RuntimeError("no table was published")
        copy = bytearray(packet)
        cdef uint8_t* data = copy
        cdef uint32_t have = len(packet)
        with nogil:
            self.lock()
            self.classify(&candidate, data, have, have, True, False, False)
            if candidate.reason < 0 and candidate.service >= 0:
                key_to_service(&wanted, &candidate.packet)
                flow = table_peek(&self.table, candidate.hash, &wanted)
                if flow != NULL:
                    wanted = flow[0]
            self.unlock()
        if flow == NULL or now_ms // TICK_MS >= wanted.deadline:
            return None
        return snapshot(&wanted)

    def decide_all(self, list packets not None, uint64_t now_ms, *, bint rewrite=False, uint32_t rounds=1):
        """Decides every packet `rounds` times over without returning to Python; returns the count.

        For measuring and for replay. The packets stand one behind another in memory and are taken in
        batches, as a worker takes them from its receive buffers. With `rewrite` a copy is rewritten.
        """
        cdef Candidate batch[BATCH]
        cdef Outcome outcome
        cdef size_t count = len(packets)
        cdef size_t i, n
        cdef uint32_t r
        cdef const uint8_t* packet
        cdef uint8_t scratch[BATCH][2048]
        if self.rules is None:
            raise RuntimeError("no table was published")
        if max([len(packet) for packet in packets], default=0) > <int>sizeof(scratch[0]):
            raise ValueError(f"a packet has at most {sizeof(scratch[0])} bytes here")
        cdef bytes buffer = b"".join(packets)
        cdef const uint8_t* start = buffer
        cdef uint32_t* lengths = <uint32_t*>zeros(count, sizeof(uint32_t))
        for i in range(count):
            lengths[i] = len(packets[i])
        with nogil:
            self.lock()
            for r in range(rounds):
                packet = start
                i = 0
                while i < count:
                    n = 0
                    while n < BATCH and i < count:
                        memcpy(scratch[n], packet, lengths[i])
                        self.classify(&batch[n], scratch[n], lengths[i], lengths[i], True, False, rewrite)
                        packet += lengths[i]
                        i += 1
                        n += 1
                    self.decide_batch(batch, n, rewrite, now_ms, &outcome)
            self.unlock()
        PyMem_RawFree(lengths)
        return count * rounds

    cdef void decide_batch(self, Candidate* batch, size_t count, bint rewrite, uint64_t now_ms,
                           Outcome* last) noexcept nogil:
        cdef size_t i
        for i in range(count):
            self.warm(&batch[i])
        for i in range(count):
            self.decide_candidate(&batch[i], rewrite, now_ms, last)

    def expire(self, uint64_t now_ms):
        cdef uint32_t first = 0
        cdef uint32_t removed = 0
        while first < self.table.groups:
            removed += self.expire_groups(first, 256, now_ms)
            first += 256
        return removed

    cpdef uint32_t expire_groups(self, uint32_t first, uint32_t count, uint64_t now_ms):
        """Removes the expired flows of some groups: a piece of work small enough to hold the lock for."""
        cdef uint32_t removed
        with nogil:
            self.lock()
            removed = table_expire(&self.table, first, count, <uint32_t>(now_ms // TICK_MS))
            self.unlock()
        return removed

    @property
    def groups(self):
        """Groups of the flow table, for `expire_groups`."""
        return self.table.groups

    def reasons(self):
        return {reason: self.reason_counts[<int>reason] for reason in words.Reason}

    def slot_counters(self, uint16_t slot):
        cdef SlotStats* stats = self.slot_stats + slot
        return words.SlotCounters(
            self.shared.slot_flows[slot],
            self.shared.slot_active[slot],
            stats.scheduled,
            stats.packets_in,
            stats.bytes_in,
            stats.packets_out,
            stats.bytes_out,
        )

    def flow_count(self):
        return self.table.used

    def flows(self):
        """A snapshot, a chunk at a time: the lock is held for 256 groups, never for the whole table."""
        cdef Flow* chunk = <Flow*>zeros(256 * GROUP, sizeof(Flow))
        cdef uint32_t first = 0
        cdef uint32_t found, i
        try:
            while first < self.table.groups:
                with nogil:
                    self.lock()
                    found = self.copy_flows(chunk, first, 256)
                    self.unlock()
                first += 256
                for i in range(found):
                    yield snapshot(chunk + i)
        finally:
            PyMem_RawFree(chunk)

    cdef uint32_t copy_flows(self, Flow* target, uint32_t first, uint32_t count) noexcept nogil:
        cdef size_t place
        cdef uint32_t found = 0
        for place in range(<size_t>first * GROUP, <size_t>min(first + count, self.table.groups) * GROUP):
            if self.table.tags[place]:
                target[found] = self.table.flows[place]
                found += 1
        return found


cdef snapshot(const Flow* flow):
    return words.Flow(
        dump_addr(&flow.client, flow.protocol),
        swap16(flow.client_port_be),
        dump_addr(&flow.vip, flow.protocol),
        swap16(flow.vip_port_be),
        flow.protocol & 0x7F,
        flow.slot,
        words.State(flow.state),
        flow.deadline * <uint64_t>TICK_MS,
        flow.packets,
        flow.bytes,
    )
