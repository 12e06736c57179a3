"""Compiles a `Table` (l4lb.dataplane.table) into what the packet path reads."""
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdint cimport int64_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy

from l4lb.dataplane.packet cimport FAMILY_IPV6, load_addr, swap16
from l4lb.dataplane.tcp cimport FROM_CLIENT, FROM_CLIENT_ONLY

from l4lb.dataplane import decision as words
from l4lb.dataplane.table import MAX_SLOTS
from l4lb.model import Scheduler

_SCHEDULERS = {
    Scheduler.ROUND_ROBIN: ROUND_ROBIN,
    Scheduler.WEIGHTED_ROUND_ROBIN: WEIGHTED_ROUND_ROBIN,
    Scheduler.LEAST_CONNECTIONS: LEAST_CONNECTIONS,
    Scheduler.WEIGHTED_LEAST_CONNECTIONS: WEIGHTED_LEAST_CONNECTIONS,
    Scheduler.SOURCE_HASH: SOURCE_HASH,
    Scheduler.MAGLEV: MAGLEV,
    Scheduler.POWER_OF_TWO: POWER_OF_TWO,
}
assert SLOTS == MAX_SLOTS


cdef void* zeros(size_t count, size_t size) except NULL:
    cdef void* memory = PyMem_RawCalloc(count + 1, size)
    if memory == NULL:
        raise MemoryError
    return memory


cdef int fill_map(AddressMap* target, source, bint segments) except -1:
    """Compiles {(address, protocol): ranges}; segments are numbered in the order met."""
    cdef uint32_t size = 4
    cdef uint32_t place
    cdef uint32_t next_range = 0
    cdef uint32_t next_segment = 0
    cdef AddressView* view
    while size < 2 * len(source):
        size *= 2
    target.mask = size - 1
    target.places = <AddressView*>zeros(size, sizeof(AddressView))
    target.ranges = <RangeView*>zeros(sum([len(ranges) for ranges in source.values()]), sizeof(RangeView))
    for (raw, protocol), ranges in source.items():
        address = load_addr(raw)
        family = FAMILY_IPV6 if len(raw) == 16 else 0
        place = spread(&address, protocol | family) & target.mask
        while target.places[place].protocol:
            place = (place + 1) & target.mask
        view = target.places + place
        view.address = address
        view.protocol = protocol | family
        view.first_range = next_range
        view.ranges = len(ranges)
        for entry in ranges:
            target.ranges[next_range].first = entry.first
            target.ranges[next_range].last = entry.last
            target.ranges[next_range].value = next_segment if segments else entry.service
            next_segment += 1
            next_range += 1
    return 0


cdef class NativeTable:
    """A `Table` in flat arrays, shared by all balancers. A service of `previous` that has stayed as it was
    keeps its turn."""

    def __cinit__(self, source not None, NativeTable previous=None):
        cdef uint32_t entry = 0
        cdef uint32_t frontend = 0
        cdef uint32_t segment = 0
        cdef ServiceView* service
        cdef uint16_t slot
        self.source = source
        self.keep = []
        self.service_count = len(source.services)
        self.services = <ServiceView*>zeros(self.service_count, sizeof(ServiceView))
        every = [b for s in source.services for b in s.backends]
        self.slots_end = max([b.slot for b in every], default=-1) + 1
        if self.slots_end > SLOTS:
            raise ValueError(f"slot {self.slots_end - 1} is out of range")
        self.backends = <BackendView*>zeros(self.slots_end, sizeof(BackendView))
        self.slots = <uint16_t*>zeros(len(every), sizeof(uint16_t))
        self.weights = <uint32_t*>zeros(len(every), sizeof(uint32_t))
        for slot in range(self.slots_end):
            self.backends[slot].service = -1
        for index, s in enumerate(source.services):
            service = self.services + <uint32_t>index
            service.scheduler = _SCHEDULERS[s.scheduler]
            service.first = entry
            if len(s.lookup) % 2:
                raise ValueError(f"the lookup table of {s.name} is not of 16-bit numbers")
            self.keep.append(s.lookup)
            service.lookup = <const uint16_t*><const char*>(<bytes>s.lookup)
            service.lookup_size = len(s.lookup) // 2
            for value in memoryview(s.lookup).cast("H"):
                if value >= self.slots_end:
                    raise ValueError(f"the lookup table of {s.name} names the unknown slot {value}")
            for b in s.backends:
                slot = b.slot
                self.backends[slot].address = load_addr(b.address)
                self.backends[slot].port_be = swap16(b.port)
                self.backends[slot].service = index
                if b.weight:
                    self.slots[entry] = slot
                    self.weights[entry] = b.weight
                    service.weight += <uint32_t>b.weight
                    entry += 1
            service.count = entry - service.first
            if service.count and not service.lookup_size:
                raise ValueError(f"the lookup table of {s.name} is empty")
        self.entries = entry
        fill_map(&self.vips, source.vips, False)
        fill_map(&self.endpoints, source.endpoints, True)
        flat = [s for ranges in source.endpoints.values() for s in ranges]
        self.segments = <SegmentView*>zeros(len(flat), sizeof(SegmentView))
        self.frontends = <FrontendView*>zeros(sum([len(s.frontends) for s in flat]), sizeof(FrontendView))
        for s in flat:
            self.segments[segment].first_frontend = frontend
            self.segments[segment].count = len(s.frontends)
            segment += 1
            for f in s.frontends:
                self.frontends[frontend].address = load_addr(f.address)
                self.frontends[frontend].port_be = swap16(f.port)
                self.frontends[frontend].slot = f.slot
                self.frontends[frontend].index = f.index
                frontend += 1
        self.seen_client = FROM_CLIENT if source.replies_seen else FROM_CLIENT_ONLY
        for state in words.State:
            self.timeout_ms[<int>state] = source.timeouts.of(state)
        pthread_mutex_init(&self.turns, NULL)
        self.cursors = <uint32_t*>zeros(self.service_count, sizeof(uint32_t))
        self.currents = <int64_t*>zeros(self.entries, sizeof(int64_t))
        self.spare = <int64_t*>zeros(self.entries, sizeof(int64_t))
        if previous is not None:
            self.keep_turns(previous)

    cdef keep_turns(self, NativeTable previous):
        cdef int before, after
        places = {s.name: i for i, s in enumerate(previous.source.services)}
        pthread_mutex_lock(&previous.turns)
        for after, s in enumerate(self.source.services):
            before = places.get(s.name, -1)
            if before >= 0 and same_service(previous, before, self, after):
                self.cursors[after] = previous.cursors[before]
                memcpy(self.currents + self.services[after].first,
                       previous.currents + previous.services[before].first,
                       self.services[after].count * sizeof(int64_t))
        pthread_mutex_unlock(&previous.turns)

    def __dealloc__(self):
        pthread_mutex_destroy(&self.turns)
        PyMem_RawFree(self.cursors)
        PyMem_RawFree(self.currents)
        PyMem_RawFree(self.spare)
        PyMem_RawFree(self.services)
        PyMem_RawFree(self.backends)
        PyMem_RawFree(self.slots)
        PyMem_RawFree(self.weights)
        PyMem_RawFree(self.vips.places)
        PyMem_RawFree(self.vips.ranges)
        PyMem_RawFree(self.endpoints.places)
        PyMem_RawFree(self.endpoints.ranges)
        PyMem_RawFree(self.segments)
        PyMem_RawFree(self.frontends)


cdef bint same_service(NativeTable old, int before, NativeTable new, int after) noexcept:
    """Whether a service's scheduler and backends are what they were, so that its cursor holds."""
    cdef ServiceView* a = old.services + before
    cdef ServiceView* b = new.services + after
    return (
        a.scheduler == b.scheduler
        and a.count == b.count
        and memcmp(old.slots + a.first, new.slots + b.first, a.count * sizeof(uint16_t)) == 0
        and memcmp(old.weights + a.first, new.weights + b.first, a.count * sizeof(uint32_t)) == 0
    )
