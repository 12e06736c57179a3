"""`Balancer`: the packet path for Python, with its tables, snapshots and counters."""
from cpython.mem cimport PyMem_RawFree
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from l4lb.dataplane.affinity cimport (
    AFFINITY_PLACES,
    Affinity,
    affinities_close,
    affinities_open,
    copy_affinities,
    load_affinity,
)
from l4lb.dataplane.classify cimport classify, warm
from l4lb.dataplane.core cimport CARRY_REWRITE, CARRY_SENT, Candidate, Outcome, SlotStats
from l4lb.dataplane.flowtable cimport GROUP, TICK_MS, Flow, table_expire, table_remove_slot
from l4lb.dataplane.handover cimport Record, copy_records, load_record
from l4lb.dataplane.hashing cimport load_key
from l4lb.dataplane.nativetable cimport (
    POOL_PROTOCOL,
    SLOTS,
    Rules,
    find_value,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    zeros,
)
from l4lb.dataplane.packet cimport FAMILY_IPV6, HEADROOM, dump_addr, load_addr, swap16
from l4lb.dataplane.path cimport core_close, core_open, decide
from l4lb.dataplane.ports cimport NO_NUMBER, ports_number_of, ports_place
from l4lb.dataplane.preview cimport peek, preview
from l4lb.dataplane.reasons cimport verdict_of
from l4lb.dataplane.selecting cimport STEP, Entry, Heap, Sought, load_selection, select_flows
from l4lb.dataplane.sources cimport sources_close, sources_open

from l4lb.dataplane import decision as words
from l4lb.dataplane.records import pack_records, unpack_records
from l4lb.dataplane.selection import Selected

cdef enum:
    BATCH = 16
    CHUNK = 256     # groups of the flow table that are looked through under one lock
    AFFINITIES_AT_ONCE = 4096   # places that are

FORMAT = b"l4lb flows 1\n"
AFFINITY_FORMAT = b"l4lb affinities 1\n"


cdef class SharedCounters:
    def __cinit__(self):
        self.slot_flows = <int*>zeros(SLOTS, sizeof(int))
        self.slot_active = <int*>zeros(SLOTS, sizeof(int))
        self.slot_open = <int*>zeros(SLOTS, sizeof(int))
        self.sources = sources_open()
        self.affinities = affinities_open()
        self.limited = set()

    def __dealloc__(self):
        PyMem_RawFree(self.slot_flows)
        PyMem_RawFree(self.slot_active)
        PyMem_RawFree(self.slot_open)
        sources_close(self.sources)
        affinities_close(self.affinities)

    cdef learn(self, NativeTable table):
        """Learns which service a slot belongs to. Slots that are gone keep theirs, for flows may remember them."""
        cdef Rules* rules = &table.rules
        cdef uint32_t slot
        cdef int service
        for service in range(<int>rules.service_count):
            if rules.services[service].source_new_flows or rules.services[service].source_flows:
                self.limited.add(rules.services[service].number)
        for slot in range(rules.slots_end):
            service = rules.backends[slot].service
            if service >= 0:
                self.sources.numbers[slot] = rules.services[service].number
        # All slots: one that left the table may have flows of a service that has a limit only now.
        for slot in range(SLOTS if self.limited else 0):
            self.sources.limited[slot] = self.sources.numbers[slot] in self.limited

    def flows(self, uint16_t slot):
        return self.slot_flows[slot]

    def active(self, uint16_t slot):
        return self.slot_active[slot]

    def open(self, uint16_t slot):
        return self.slot_open[slot]

    def untracked(self):
        return self.sources.untracked

    def crowded_out(self):
        return self.affinities.crowded_out

    def counters(self):
        return {"untracked": self.untracked(), "crowded_out": self.crowded_out()}

    def load_counters(self, counted):
        self.sources.untracked += counted["untracked"]
        self.affinities.crowded_out += counted["crowded_out"]

    def dump_affinities(self, uint64_t now_ms):
        return pack_records(AFFINITY_FORMAT, sizeof(Affinity), self.affinity_chunks(now_ms))

    def affinity_chunks(self, uint64_t now_ms):
        """The affinities that have not ended, in bytes: those of some groups at a time."""
        cdef Affinity* records = <Affinity*>zeros(AFFINITIES_AT_ONCE, sizeof(Affinity))
        cdef size_t first, found
        try:
            for first in range(0, AFFINITY_PLACES, AFFINITIES_AT_ONCE):
                with nogil:
                    pthread_mutex_lock(&self.affinities.mutex)
                    found = copy_affinities(self.affinities, records, first, AFFINITIES_AT_ONCE, now_ms)
                    pthread_mutex_unlock(&self.affinities.mutex)
                if found:
                    yield <bytes>(<const char*>records)[:found * sizeof(Affinity)]
        finally:
            PyMem_RawFree(records)

    def load_affinities(self, chunks):
        cdef const Affinity* records
        cdef size_t i
        cdef bint fits
        cdef uint64_t refused = 0
        for chunk in unpack_records(AFFINITY_FORMAT, sizeof(Affinity), chunks):
            records = <const Affinity*><const char*>(<bytes>chunk)
            for i in range(len(chunk) // sizeof(Affinity)):
                with nogil:
                    pthread_mutex_lock(&self.affinities.mutex)
                    fits = load_affinity(self.affinities, records + i)
                    pthread_mutex_unlock(&self.affinities.mutex)
                refused += not fits
        return refused


cdef class Balancer:
    def __cinit__(self, *, capacity, bytes key not None, SharedCounters shared=None, ports=(0, 0)):
        self.core.key = load_key(key)
        self.shared = shared if shared is not None else SharedCounters()
        self.shared.sources.key = self.core.key
        self.shared.affinities.key = self.core.key
        self.core.affinities = self.shared.affinities
        self.core.table.sources = self.shared.sources
        self.core.table.slot_flows = self.shared.slot_flows
        self.core.table.slot_active = self.shared.slot_active
        self.core.table.slot_open = self.shared.slot_open
        self.taken = <Beginning*>zeros(SLOTS, sizeof(Beginning))
        core_open(&self.core, capacity, ports[0], ports[1])

    def __dealloc__(self):
        PyMem_RawFree(self.taken)
        core_close(&self.core)

    cdef void lock(self) noexcept nogil:
        pthread_mutex_lock(&self.core.mutex)

    cdef void unlock(self) noexcept nogil:
        pthread_mutex_unlock(&self.core.mutex)

    @property
    def capacity(self):
        return self.core.table.groups * GROUP

    def publish(self, table):
        """Decide by `table`, a `Table` or a `NativeTable` made of one, from the next packet on."""
        cdef NativeTable new = table if isinstance(table, NativeTable) else NativeTable(table, self.compiled)
        new.number_services(&self.core.key)
        self.shared.learn(new)
        # Packets wait for this lock, so nothing is done under it that could wait for the GIL.
        with nogil:
            self.lock()
            self.core.rules = &new.rules
            self.unlock()
        self.compiled = new  # not before: this lets go of the one that was decided by
        self.slots_end = max(self.slots_end, new.rules.slots_end)

    # Decisions -----------------------------------------------------------------------------------

    def decide(self, bytes packet not None, uint64_t now_ms, *, length=None, bint checksum_ready=True,
               bint gso=False, bint rewrite=True):
        cdef Candidate candidate
        cdef Outcome outcome
        cdef uint32_t have = len(packet)
        cdef uint32_t whole = have if length is None else length
        self.look(packet)
        copy = bytearray(HEADROOM) + packet
        cdef uint8_t* data = copy
        data += HEADROOM
        with nogil:
            self.lock()
            classify(&self.core, &candidate, data, have, whole, checksum_ready, gso, rewrite)
            decide(&self.core, &candidate, rewrite, now_ms, &outcome)
            self.unlock()
        changed = None
        if outcome.carry == CARRY_SENT:
            changed = <bytes>(<const char*>outcome.out)[:outcome.out_length]
        elif outcome.carry == CARRY_REWRITE:
            changed = <bytes>(<const char*>data)[:have]
        return words.Decision(
            words.Verdict(<int>verdict_of(outcome.reason)),
            words.Reason(outcome.reason),
            outcome.slot,
            outcome.mark,
            changed,
            outcome.carry == CARRY_SENT,
        )

    cdef const unsigned char* look(self, bytes packet) except NULL:
        """The bytes of a packet that is to be decided. RuntimeError where no table was published."""
        if self.core.rules == NULL:
            raise RuntimeError("no table was published")
        return packet

    def preview(self, bytes packet not None, uint64_t now_ms):
        """The decision that a whole packet to a service would get, with nothing changed or counted."""
        cdef Candidate candidate
        cdef Outcome outcome
        cdef const uint8_t* data = self.look(packet)
        cdef uint32_t have = len(packet)
        with nogil:
            self.lock()
            classify(&self.core, &candidate, <uint8_t*>data, have, have, True, False, False)
            preview(&self.core, &candidate, now_ms, &outcome)
            self.unlock()
        return words.Decision(words.Verdict(<int>verdict_of(outcome.reason)), words.Reason(outcome.reason),
                              outcome.slot, 0, None)

    def find(self, bytes packet not None, uint64_t now_ms):
        """The flow that a whole packet to a service belongs to, or None."""
        cdef Candidate candidate
        cdef Record found
        cdef const Flow* flow
        cdef const uint8_t* data = self.look(packet)
        cdef uint32_t have = len(packet)
        with nogil:
            self.lock()
            classify(&self.core, &candidate, <uint8_t*>data, have, have, True, False, False)
            flow = peek(&self.core, &candidate)
            if flow != NULL:
                copy_records(&self.core, &found, flow - self.core.table.flows, 1)
            self.unlock()
        return None if flow == NULL else self.present(&found, now_ms)

    def find_source(self, bytes address not None, uint16_t port, uint8_t protocol, uint64_t now_ms):
        """The flow whose masquerade source is this, or None."""
        cdef uint8_t family = FAMILY_IPV6 if len(address) == 16 else 0
        cdef Record found
        cdef int64_t number, place = -1
        cdef int index
        addr = load_addr(address)
        self.look(address)
        with nogil:
            self.lock()
            index = find_value(&self.core.rules.pool, &addr, POOL_PROTOCOL | family, 0)
            if index >= 0:
                number = ports_number_of(&self.core.table.ports, index, port)
                if number != NO_NUMBER:
                    place = ports_place(&self.core.table.ports, <uint32_t>number)
                    if place >= 0:
                        copy_records(&self.core, &found, place, 1)
            self.unlock()
        if place < 0 or found.flow.protocol != protocol | family:
            return None
        return self.present(&found, now_ms)

    def decide_all(self, list packets not None, uint64_t now_ms, *, bint rewrite=False, uint32_t rounds=1):
        """Decides every packet `rounds` times over without returning to Python; returns the count.

        For measuring and for replay. The packets stand one behind another in memory and are taken in
        batches, as a worker takes them from its receive buffers. With `rewrite` a copy is rewritten.
        """
        cdef Candidate batch[BATCH]
        cdef Outcome outcome
        cdef size_t count = len(packets)
        cdef size_t i, k, n
        cdef uint32_t r
        cdef const uint8_t* packet
        cdef uint8_t scratch[BATCH][HEADROOM + 2048]
        if self.core.rules == NULL:
            raise RuntimeError("no table was published")
        if max([len(packet) for packet in packets], default=0) > <int>sizeof(scratch[0]) - HEADROOM:
            raise ValueError(f"a packet has at most {sizeof(scratch[0]) - HEADROOM} bytes here")
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
                        memcpy(scratch[n] + HEADROOM, packet, lengths[i])
                        classify(&self.core, &batch[n], scratch[n] + HEADROOM, lengths[i], lengths[i],
                                      True, False, rewrite)
                        packet += lengths[i]
                        i += 1
                        n += 1
                    for k in range(n):
                        warm(&self.core, &batch[k])
                    for k in range(n):
                        decide(&self.core, &batch[k], rewrite, now_ms, &outcome)
            self.unlock()
        PyMem_RawFree(lengths)
        return count * rounds

    # Flows ---------------------------------------------------------------------------------------

    def expire(self, uint64_t now_ms):
        cdef uint32_t first = 0
        cdef uint32_t removed = 0
        while first < self.core.table.groups:
            removed += self.expire_groups(first, CHUNK, now_ms)
            first += CHUNK
        return removed

    cpdef uint32_t expire_groups(self, uint32_t first, uint32_t count, uint64_t now_ms):
        """Removes the expired flows of some groups: a piece of work small enough to hold the lock for."""
        cdef uint32_t removed
        with nogil:
            self.lock()
            removed = table_expire(&self.core.table, first, count, <uint32_t>(now_ms // TICK_MS))
            self.unlock()
        return removed

    def remove_flows(self, uint16_t slot, uint32_t first_group, uint32_t groups):
        """Removes the flows of a slot in some groups: as `expire_groups`, a small piece of work."""
        cdef uint32_t removed
        with nogil:
            self.lock()
            removed = table_remove_slot(&self.core.table, slot, first_group, groups)
            self.unlock()
        return removed

    @property
    def groups(self):
        """Groups of the flow table, for `expire_groups` and `remove_flows`."""
        return self.core.table.groups

    def flow_count(self):
        return self.core.table.used

    def flows(self):
        """A snapshot, a chunk at a time: the lock is held for 256 groups, never for the whole table."""
        cdef const Record* records
        cdef size_t i
        for chunk in self.record_chunks():
            records = <const Record*><const char*>(<bytes>chunk)
            for i in range(len(chunk) // sizeof(Record)):
                yield self.snapshot(records + i)

    def select(self, selection):
        """The flows that a `Selection` asks for, and how many match. The lock is held for some groups at a time."""
        cdef Sought sought
        cdef Heap heap
        cdef size_t i
        load_selection(&sought, selection)
        cdef Record* records = <Record*>zeros(STEP * GROUP, sizeof(Record))
        heap.entries = <Entry*>zeros(max(sought.limit, 1), sizeof(Entry))
        try:
            with nogil:
                select_flows(&self.core, &sought, &heap, records)
            return Selected([self.snapshot(&heap.entries[i].record) for i in range(heap.count)], heap.matched)
        finally:
            PyMem_RawFree(heap.entries)
            PyMem_RawFree(records)

    def dump(self):
        """The flows as `load` takes them: chunks of bytes, the first of which says the format."""
        return pack_records(FORMAT, sizeof(Record), self.record_chunks())

    def load(self, chunks):
        """Remembers the flows of a `dump` besides those that are known; returns how many did not fit.

        Publish a table before: it says which services limit their sources. ValueError where the format is
        another one, or the dump is cut.
        """
        cdef const Record* records
        cdef size_t i
        cdef bint fits
        cdef uint64_t refused = 0
        for chunk in unpack_records(FORMAT, sizeof(Record), chunks):
            records = <const Record*><const char*>(<bytes>chunk)
            for i in range(len(chunk) // sizeof(Record)):
                with nogil:
                    self.lock()
                    fits = load_record(&self.core, records + i)
                    self.unlock()
                refused += not fits
        return refused

    def record_chunks(self):
        """The records of all flows, in bytes: those of some groups at a time."""
        cdef Record* records = <Record*>zeros(CHUNK * GROUP, sizeof(Record))
        cdef size_t first = 0
        cdef size_t found, count
        try:
            while first < self.core.table.groups:
                count = min(<size_t>CHUNK, self.core.table.groups - first)
                with nogil:
                    self.lock()
                    found = copy_records(&self.core, records, first * GROUP, count * GROUP)
                    self.unlock()
                first += count
                if found:
                    yield <bytes>(<const char*>records)[:found * sizeof(Record)]
        finally:
            PyMem_RawFree(records)

    cdef present(self, const Record* record, uint64_t now_ms):
        return None if now_ms // TICK_MS >= record.flow.deadline else self.snapshot(record)

    cdef snapshot(self, const Record* record):
        cdef const Flow* flow = &record.flow
        pool = self.compiled.source.pool if self.compiled is not None else ()
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
            pool[record.address] if record.port and record.address < len(pool) else b"",
            record.port,
        )

    # Counters ------------------------------------------------------------------------------------

    def reasons(self):
        return {reason: self.core.reason_counts[<int>reason] for reason in words.Reason}

    def slot_counters(self, uint16_t slot):
        cdef SlotStats* stats = self.core.slot_stats + slot
        return words.SlotCounters(
            self.shared.slot_flows[slot],
            self.shared.slot_active[slot],
            self.shared.slot_open[slot],
            stats.scheduled,
            stats.packets_in,
            stats.bytes_in,
            stats.packets_out,
            stats.bytes_out,
            stats.begun,
            stats.failed,
        )

    def take_beginnings(self):
        """Slot, flows that began and flows that failed to, where there were any since the last call."""
        cdef const SlotStats* stats
        cdef Beginning* taken
        cdef uint32_t slot
        found = []
        for slot in range(self.slots_end):
            stats = self.core.slot_stats + slot
            taken = self.taken + slot
            if stats.begun != taken.begun or stats.failed != taken.failed:
                now = stats.begun, stats.failed
                found.append((slot, now[0] - taken.begun, now[1] - taken.failed))
                taken.begun, taken.failed = now
        return found

    def counters(self):
        """What was counted, as plain values for `load_counters`."""
        cdef const SlotStats* stats
        cdef int slot
        slots = {}
        for slot in range(SLOTS):
            stats = self.core.slot_stats + slot
            if stats.scheduled or stats.packets_in or stats.packets_out:
                slots[str(slot)] = [
                    stats.scheduled,
                    stats.packets_in,
                    stats.bytes_in,
                    stats.packets_out,
                    stats.bytes_out,
                    stats.begun,
                    stats.failed,
                ]
        return {"reasons": {reason.name: count for reason, count in self.reasons().items()}, "slots": slots}

    def load_counters(self, counted):
        """Adds the `counters` of another balancer. Reasons that are not known here are left out."""
        cdef SlotStats* stats
        cdef uint16_t slot
        known = words.Reason.__members__
        reasons = [(known[name], count) for name, count in counted["reasons"].items() if name in known]
        slots = [(int(number), *seen) for number, seen in counted["slots"].items()]
        with nogil:
            self.lock()
        try:
            for reason, count in reasons:
                self.core.reason_counts[<int>reason] += <uint64_t>count
            for slot, scheduled, packets_in, bytes_in, packets_out, bytes_out, begun, failed in slots:
                stats = self.core.slot_stats + slot
                stats.scheduled += <uint64_t>scheduled
                stats.packets_in += <uint64_t>packets_in
                stats.bytes_in += <uint64_t>bytes_in
                stats.packets_out += <uint64_t>packets_out
                stats.bytes_out += <uint64_t>bytes_out
                stats.begun += <uint64_t>begun
                stats.failed += <uint64_t>failed
                # What another has counted, that one has told.
                self.taken[slot].begun += <uint64_t>begun
                self.taken[slot].failed += <uint64_t>failed
        finally:
            self.unlock()
