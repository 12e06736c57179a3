"""Compiles a `Table` (l4lb.dataplane.table) into what the packet path reads."""
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy

from l4lb.dataplane.hashing cimport sip_bytes
from l4lb.dataplane.packet cimport FAMILY_IPV6, load_addr, swap16
from l4lb.dataplane.ports cimport MAX_POOL
from l4lb.dataplane.tcp cimport FROM_CLIENT, FROM_CLIENT_ONLY

from l4lb.dataplane import decision as words
from l4lb.dataplane.affinity_group import affinity_groups, affinity_owner
from l4lb.dataplane.table import MAX_MARKED_VIPS, MAX_SLOTS, PortRange
from l4lb.model import Forward, Scheduler

_SCHEDULERS = {
    Scheduler.ROUND_ROBIN: ROUND_ROBIN,
    Scheduler.WEIGHTED_ROUND_ROBIN: WEIGHTED_ROUND_ROBIN,
    Scheduler.LEAST_CONNECTIONS: LEAST_CONNECTIONS,
    Scheduler.WEIGHTED_LEAST_CONNECTIONS: WEIGHTED_LEAST_CONNECTIONS,
    Scheduler.SOURCE_HASH: SOURCE_HASH,
    Scheduler.MAGLEV: MAGLEV,
    Scheduler.POWER_OF_TWO: POWER_OF_TWO,
    Scheduler.FAILOVER: IN_ORDER,
    Scheduler.OVERFLOW: IN_ORDER,
}
_FORWARDS = {
    Forward.NAT: FORWARD_NAT,
    Forward.MASQUERADE: FORWARD_MASQUERADE,
    Forward.DSR: FORWARD_DSR,
    Forward.IPIP: FORWARD_IPIP,
    Forward.GUE: FORWARD_GUE,
}
assert SLOTS == MAX_SLOTS


cdef void* zeros(size_t count, size_t size) except NULL:
    cdef void* memory = PyMem_RawCalloc(count + 1, size)
    if memory == NULL:
        raise MemoryError
    return memory


cdef bytes make_mask(prefix, size):
    """The netmask of `prefix` bits, or of all where there are not so many, in `size` bytes."""
    spare = max(8 * size - prefix, 0)
    return ((1 << 8 * size) - (1 << spare)).to_bytes(size, "big")


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
        cdef Rules* rules = &self.rules
        self.source = source
        self.keep = []
        pthread_mutex_init(&rules.turns, NULL)
        self.compile_services(source)
        self.compile_groups(source)
        self.compile_leaving(source)
        fill_map(&rules.vips, source.vips, False)
        self.compile_answers(source)
        self.compile_pool(source)
        for state in words.State:
            rules.timeout_ms[<int>state] = source.timeouts.of(state)
        rules.learns = source.learns
        rules.new_flows = source.new_flows
        rules.gue_port = source.gue_port
        rules.cursors = <uint32_t*>zeros(rules.service_count, sizeof(uint32_t))
        rules.currents = <int64_t*>zeros(rules.entries, sizeof(int64_t))
        rules.spare = <int64_t*>zeros(rules.entries, sizeof(int64_t))
        if previous is not None:
            self.keep_turns(previous)

    cdef int compile_services(self, source) except -1:
        cdef Rules* rules = &self.rules
        cdef ServiceView* service
        cdef VipView* vip
        cdef uint32_t slot
        cdef uint32_t vips = 0
        every = [b for s in source.services for b in s.backends]
        rules.service_count = len(source.services)
        rules.services = <ServiceView*>zeros(rules.service_count, sizeof(ServiceView))
        rules.slots_end = max([b.slot for b in every], default=-1) + 1
        if rules.slots_end > SLOTS:
            raise ValueError(f"slot {rules.slots_end - 1} is out of range")
        rules.backends = <BackendView*>zeros(rules.slots_end, sizeof(BackendView))
        for slot in range(rules.slots_end):
            rules.backends[slot].service = -1
        rules.slots = <uint16_t*>zeros(len(every), sizeof(uint16_t))
        rules.weights = <uint32_t*>zeros(len(every), sizeof(uint32_t))
        rules.marked_vips = <VipView*>zeros(sum([len(s.vips) for s in source.services]), sizeof(VipView))
        for index, s in enumerate(source.services):
            service = rules.services + <uint32_t>index
            service.scheduler = _SCHEDULERS[s.scheduler]
            service.forward = _FORWARDS[s.forward]
            service.sent = service.forward == FORWARD_MASQUERADE or service.forward >= FORWARD_IPIP
            service.seen = FROM_CLIENT_ONLY
            if service.forward == FORWARD_MASQUERADE or (service.forward == FORWARD_NAT and source.replies_seen):
                service.seen = FROM_CLIENT
            service.source_new_flows = s.source_new_flows
            service.source_flows = s.source_flows
            service.shares_hash = s.kernel_seed is not None
            service.kernel_seed = s.kernel_seed or 0
            service.one_packet = s.one_packet and service.forward != FORWARD_MASQUERADE
            service.rejects = s.rejects
            service.custom = NULL if s.custom is None else <void*>s.custom
            service.has_affinity = s.affinity_prefix != 0
            service.affinity_ms = s.affinity_ms
            service.affinity_masks[0] = load_addr(make_mask(s.affinity_prefix, 4))
            service.affinity_masks[1] = load_addr(make_mask(s.affinity_prefix, 16))
            if len(s.vips) > MAX_MARKED_VIPS:
                raise ValueError(f"{s.name} has {len(s.vips)} VIPs, and a mark tells {MAX_MARKED_VIPS} apart")
            service.first_vip = vips
            service.vips = len(s.vips)
            for raw in s.vips:
                vip = rules.marked_vips + vips
                vip.address = load_addr(raw)
                vip.family = FAMILY_IPV6 if len(raw) == 16 else 0
                vips += 1
            self.compile_backends(service, index, s)
        return 0

    cdef int compile_backends(self, ServiceView* service, int index, s) except -1:
        cdef Rules* rules = &self.rules
        cdef BackendView* backend
        cdef uint32_t place
        if len(s.lookup) % 2:
            raise ValueError(f"the lookup table of {s.name} is not of 16-bit numbers")
        self.keep.append(s.lookup)
        service.lookup = <const uint16_t*><const char*>(<bytes>s.lookup)
        service.lookup_size = len(s.lookup) // 2
        for place in range(service.lookup_size):
            if service.lookup[place] >= rules.slots_end:
                raise ValueError(f"the lookup table of {s.name} names the unknown slot {service.lookup[place]}")
        service.first = rules.entries
        for b in s.backends:
            backend = rules.backends + <uint32_t>b.slot
            backend.address = load_addr(b.address)
            backend.port_be = swap16(b.port)
            backend.family = FAMILY_IPV6 if len(b.address) == 16 else 0
            backend.service = index
            backend.mtu = b.mtu
            if service.forward >= FORWARD_IPIP:
                if len(b.source) != len(b.address) or not 0 <= b.source_prefix <= 8 * len(b.source):
                    raise ValueError(f"{s.name}: a tunnel needs a source and prefix of the backend's family")
                backend.source = load_addr(b.source)
                backend.source_prefix = b.source_prefix
            backend.pool_first, backend.pool_count = b.pool
            if sum(b.pool) > len(self.source.pool):
                raise ValueError(f"{s.name}: the pool has no addresses {b.pool}")
            backend.takes_new = b.weight > 0
            backend.max_connections = b.max_connections
            backend.leaving = LEAVING_DATAGRAMS if service.one_packet else 0
            if b.weight:
                rules.slots[rules.entries] = b.slot
                rules.weights[rules.entries] = b.weight
                service.weight += <uint32_t>b.weight
                rules.entries += 1
        service.count = rules.entries - service.first
        if service.count and not service.lookup_size:
            raise ValueError(f"the lookup table of {s.name} is empty")
        return 0

    cdef int compile_groups(self, source) except -1:
        cdef Rules* rules = &self.rules
        cdef uint32_t group, member, slot
        cdef uint32_t next_peer = 0
        groups = affinity_groups(source.services)
        rules.peers = <uint16_t*>zeros(sum([len(g.hosts) * len(g.services) for g in groups]), sizeof(uint16_t))
        for group, g in enumerate(groups, 1):
            for member, index in enumerate(g.services):
                rules.services[<uint32_t>index].affinity_group = group
                rules.services[<uint32_t>index].affinity_member = member
            for host in g.hosts:
                for member, slot in enumerate(host):
                    rules.backends[slot].host = next_peer + 1
                    rules.peers[next_peer + member] = <uint16_t>slot
                next_peer += len(host)
        return 0

    cdef int compile_leaving(self, source) except -1:
        cdef Rules* rules = &self.rules
        cdef uint32_t slot
        for slots, leaving in ((source.resets, LEAVING_BY_RESET), (source.moves, LEAVING_BY_MOVE)):
            for slot in slots:
                if slot < rules.slots_end:
                    rules.backends[slot].leaving |= <uint8_t>leaving
        return 0

    cdef int compile_answers(self, source) except -1:
        cdef Rules* rules = &self.rules
        cdef FrontendView* frontend
        cdef SegmentView* segment
        cdef uint32_t frontends = 0
        cdef uint32_t segments = 0
        fill_map(&rules.endpoints, source.endpoints, True)
        flat = [s for ranges in source.endpoints.values() for s in ranges]
        rules.segments = <SegmentView*>zeros(len(flat), sizeof(SegmentView))
        rules.frontends = <FrontendView*>zeros(sum([len(s.frontends) for s in flat]), sizeof(FrontendView))
        for s in flat:
            segment = rules.segments + segments
            segment.first_frontend = frontends
            segment.count = len(s.frontends)
            segments += 1
            for f in s.frontends:
                frontend = rules.frontends + frontends
                frontend.address = load_addr(f.address)
                frontend.port_be = swap16(f.port)
                frontend.slot = f.slot
                frontend.index = f.index
                frontends += 1
        return 0

    cdef int compile_pool(self, source) except -1:
        cdef Rules* rules = &self.rules
        cdef uint32_t index
        if len(source.pool) > MAX_POOL:
            raise ValueError(f"the pool has {len(source.pool)} addresses, and may have {MAX_POOL}")
        rules.pool_size = len(source.pool)
        rules.pool_addresses = <Addr*>zeros(MAX_POOL, sizeof(Addr))
        for index in range(rules.pool_size):
            rules.pool_addresses[index] = load_addr(source.pool[index])
        every_port = {
            (raw, POOL_PROTOCOL): (PortRange(0, 65535, index),) for index, raw in enumerate(source.pool)
        }
        return fill_map(&rules.pool, every_port, False)

    cdef keep_turns(self, NativeTable previous):
        cdef Rules* old = &previous.rules
        cdef Rules* new = &self.rules
        cdef int before, after
        cdef uint32_t pairs = 0
        cdef uint32_t i
        cdef int* stayed = <int*>zeros(2 * new.service_count, sizeof(int))
        places = {s.name: number for number, s in enumerate(previous.source.services)}
        for after, s in enumerate(self.source.services):
            before = places.get(s.name, -1)
            if before >= 0 and same_service(old, before, new, after):
                stayed[2 * pairs] = before
                stayed[2 * pairs + 1] = after
                pairs += 1
        # New flows wait for this lock, so nothing is done under it that could wait for the GIL.
        with nogil:
            pthread_mutex_lock(&old.turns)
            for i in range(pairs):
                before = stayed[2 * i]
                after = stayed[2 * i + 1]
                new.cursors[after] = old.cursors[before]
                memcpy(new.currents + new.services[after].first, old.currents + old.services[before].first,
                       new.services[after].count * sizeof(int64_t))
            pthread_mutex_unlock(&old.turns)
        PyMem_RawFree(stayed)

    cdef number_services(self, const Key* key):
        """Numbers the services for their sources and clients. All balancers have one key, so it is the same each
        time."""
        cdef uint32_t index
        for index in range(self.rules.service_count):
            name = self.source.services[index].name.encode()
            self.rules.services[index].number = <uint32_t>sip_bytes(key, name, len(name))
            name = affinity_owner(self.source.services[index]).encode()
            self.rules.services[index].affinity_number = <uint32_t>sip_bytes(key, name, len(name))

    def __dealloc__(self):
        cdef Rules* rules = &self.rules
        pthread_mutex_destroy(&rules.turns)
        PyMem_RawFree(rules.cursors)
        PyMem_RawFree(rules.currents)
        PyMem_RawFree(rules.spare)
        PyMem_RawFree(rules.services)
        PyMem_RawFree(rules.backends)
        PyMem_RawFree(rules.marked_vips)
        PyMem_RawFree(rules.slots)
        PyMem_RawFree(rules.weights)
        PyMem_RawFree(rules.peers)
        PyMem_RawFree(rules.vips.places)
        PyMem_RawFree(rules.vips.ranges)
        PyMem_RawFree(rules.endpoints.places)
        PyMem_RawFree(rules.endpoints.ranges)
        PyMem_RawFree(rules.segments)
        PyMem_RawFree(rules.frontends)
        PyMem_RawFree(rules.pool.places)
        PyMem_RawFree(rules.pool.ranges)
        PyMem_RawFree(rules.pool_addresses)


cdef bint same_service(const Rules* old, int before, const Rules* new, int after) noexcept:
    """Whether a service's scheduler and backends are what they were, so that its cursor holds."""
    cdef const ServiceView* a = old.services + before
    cdef const ServiceView* b = new.services + after
    return (
        a.scheduler == b.scheduler
        and a.count == b.count
        and memcmp(old.slots + a.first, new.slots + b.first, a.count * sizeof(uint16_t)) == 0
        and memcmp(old.weights + a.first, new.weights + b.first, a.count * sizeof(uint32_t)) == 0
    )
