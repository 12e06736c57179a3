"""The flow table (docs/design/decision.md, section 6; layout and bounds in flowtable.pxd)."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from l4lb.dataplane.packet cimport FAMILY_IPV6
from l4lb.dataplane.ports cimport ports_close, ports_free, ports_number, ports_open, ports_place
from l4lb.dataplane.reasons cimport STATE_ESTABLISHED
from l4lb.dataplane.sources cimport sources_count
from l4lb.dataplane.tcp cimport tcp_closing

cdef extern from *:
    """
    #include <stdint.h>
    #include <sys/mman.h>
    #ifdef __SSE2__
    #include <emmintrin.h>
    #endif

    /* One bit for each of the 16 tags that equal `tag`. */
    static inline unsigned l4lb_match16(const uint8_t *tags, uint8_t tag) {
    #ifdef __SSE2__
        __m128i group = _mm_load_si128((const __m128i *)tags);
        return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(group, _mm_set1_epi8((char)tag)));
    #else
        unsigned bits = 0;
        for (int i = 0; i < 16; i++) bits |= (unsigned)(tags[i] == tag) << i;
        return bits;
    #endif
    }
    static inline int l4lb_ctz(unsigned bits) { return __builtin_ctz(bits); }
    static inline int l4lb_popcount(unsigned bits) { return __builtin_popcount(bits); }
    static inline void l4lb_prefetch(const void *p) { __builtin_prefetch(p, 1); }
    static inline void l4lb_prefetch_to_read(const void *p) { __builtin_prefetch(p, 0); }
    static inline void l4lb_add(int *counter, int change) {
        __atomic_fetch_add(counter, change, __ATOMIC_RELAXED);
    }
    static inline void *l4lb_map(size_t bytes) {
        void *p = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) return 0;
        /* Best effort: one TLB entry instead of 512, and no page faults on the packet path. */
        madvise(p, bytes, MADV_HUGEPAGE);
    #ifdef MADV_POPULATE_WRITE
        madvise(p, bytes, MADV_POPULATE_WRITE);
    #else
        madvise(p, bytes, 23);  /* Linux 5.14; headers may be older than the kernel */
    #endif
        return p;
    }
    """
    unsigned match16 "l4lb_match16"(const uint8_t* tags, uint8_t tag) noexcept nogil
    int ctz "l4lb_ctz"(unsigned bits) noexcept nogil
    int popcount "l4lb_popcount"(unsigned bits) noexcept nogil
    void prefetch "l4lb_prefetch"(const void* p) noexcept nogil
    void prefetch_to_read "l4lb_prefetch_to_read"(const void* p) noexcept nogil
    void atomic_add "l4lb_add"(int* counter, int change) noexcept nogil
    void* map_memory "l4lb_map"(size_t bytes) noexcept nogil
    int munmap(void* p, size_t bytes) noexcept nogil


cdef inline uint8_t tag_of(uint64_t hash) noexcept nogil:
    """Seven bits of the hash that the group numbers do not use at common sizes, never 0."""
    return 0x80 | <uint8_t>(hash >> 57)


cdef inline uint32_t first_group(const FlowTable* table, uint64_t hash) noexcept nogil:
    return <uint32_t>hash & (table.groups - 1)


cdef inline uint32_t second_group(const FlowTable* table, uint64_t hash) noexcept nogil:
    return <uint32_t>((hash * <uint64_t>0x9E3779B97F4A7C15) >> 32) & (table.groups - 1)


cdef inline bint same_key(const Flow* a, const Flow* b) noexcept nogil:
    return (
        a.client.lo == b.client.lo
        and a.client_port_be == b.client_port_be
        and a.vip_port_be == b.vip_port_be
        and a.vip.lo == b.vip.lo
        and a.protocol == b.protocol
        and a.client.hi == b.client.hi
        and a.vip.hi == b.vip.hi
    )


cdef int table_open(FlowTable* table, uint64_t capacity, uint32_t first_port, uint32_t ports) except -1:
    cdef uint64_t places = GROUP
    while places < capacity:
        places *= 2
    if places > <uint64_t>1 << 32:
        raise ValueError(f"a flow table of {capacity} flows is too large")
    ports_open(&table.ports, first_port, ports, places)
    table.mapped = places * (1 + sizeof(Flow))
    table.tags = <uint8_t*>map_memory(table.mapped)
    if table.tags == NULL:
        raise MemoryError(f"no memory for a flow table of {places} flows ({table.mapped} bytes)")
    table.flows = <Flow*>(table.tags + places)
    table.groups = <uint32_t>(places // GROUP)
    table.used = 0
    return 0


cdef void table_close(FlowTable* table) noexcept nogil:
    """Gives the memory back, and the shared counts what this table has counted."""
    cdef uint32_t group, place
    cdef unsigned occupied
    if table.tags == NULL:
        ports_close(&table.ports)
        return
    for group in range(table.groups if table.used else 0):
        occupied = ~match16(table.tags + group * GROUP, 0) & 0xFFFF
        while occupied:
            place = group * GROUP + ctz(occupied)
            occupied &= occupied - 1
            table_remove(table, table.flows + place)
    munmap(table.tags, table.mapped)
    table.tags = NULL
    ports_close(&table.ports)


cdef Flow* find_in(const FlowTable* table, uint32_t group, uint8_t tag, const Flow* wanted) noexcept nogil:
    cdef unsigned fits = match16(table.tags + <size_t>group * GROUP, tag)
    cdef Flow* flow
    while fits:
        flow = table.flows + <size_t>group * GROUP + ctz(fits)
        if same_key(flow, wanted):
            return flow
        fits &= fits - 1
    return NULL


cdef Flow* table_peek(const FlowTable* table, uint64_t hash, const Flow* wanted) noexcept nogil:
    cdef uint8_t tag = tag_of(hash)
    cdef Flow* flow = find_in(table, first_group(table, hash), tag, wanted)
    return flow if flow != NULL else find_in(table, second_group(table, hash), tag, wanted)


cdef Flow* table_find(FlowTable* table, uint64_t hash, const Flow* wanted, uint32_t tick) noexcept nogil:
    cdef Flow* flow = table_peek(table, hash, wanted)
    if flow != NULL and tick >= flow.deadline:
        table_remove(table, flow)
        return NULL
    return flow


cdef bint table_has_room(const FlowTable* table, uint64_t hash, uint32_t tick) noexcept nogil:
    cdef size_t first = <size_t>first_group(table, hash) * GROUP
    cdef size_t second = <size_t>second_group(table, hash) * GROUP
    cdef int i
    for i in range(GROUP):
        if table.tags[first + i] == 0 or tick >= table.flows[first + i].deadline:
            return True
        if table.tags[second + i] == 0 or tick >= table.flows[second + i].deadline:
            return True
    return False


cdef Flow* free_place(const FlowTable* table, uint32_t first, uint32_t second) noexcept nogil:
    cdef unsigned in_first = match16(table.tags + <size_t>first * GROUP, 0)
    cdef unsigned in_second = match16(table.tags + <size_t>second * GROUP, 0)
    if popcount(in_second) > popcount(in_first):
        return table.flows + <size_t>second * GROUP + ctz(in_second)
    if in_first:
        return table.flows + <size_t>first * GROUP + ctz(in_first)
    return NULL


cdef Flow* table_place(FlowTable* table, uint64_t hash, uint32_t tick) noexcept nogil:
    cdef uint32_t first = first_group(table, hash)
    cdef uint32_t second = second_group(table, hash)
    cdef Flow* place = free_place(table, first, second)
    if place == NULL and table_expire(table, first, 1, tick) + table_expire(table, second, 1, tick):
        place = free_place(table, first, second)
    return place


cdef int crowded_out(const FlowTable* table, uint64_t hash, uint32_t tick, Flow** flows) noexcept nogil:
    """The expired flows, at most 32, that a new one with this hash would drive out."""
    cdef uint32_t groups[2]
    cdef Flow* flow
    cdef int found = 0
    cdef int g, i
    groups[0] = first_group(table, hash)
    groups[1] = second_group(table, hash)
    if free_place(table, groups[0], groups[1]) != NULL:
        return 0
    for g in range(1 if groups[0] == groups[1] else 2):
        for i in range(GROUP):
            flow = table.flows + <size_t>groups[g] * GROUP + i
            if tick >= flow.deadline:
                flows[found] = flow
                found += 1
    return found


cdef void table_count_crowded_out(FlowTable* table, uint64_t hash, uint32_t tick, int change) noexcept nogil:
    cdef Flow* flows[2 * GROUP]
    cdef int i
    for i in range(crowded_out(table, hash, tick, flows)):
        table_count(table, flows[i], change)


cdef bint table_would_free_port(const FlowTable* table, uint64_t hash, uint32_t tick, uint32_t first_number,
                                uint32_t count) noexcept nogil:
    cdef Flow* flows[2 * GROUP]
    cdef int64_t number
    cdef int i
    for i in range(crowded_out(table, hash, tick, flows)):
        number = table_number(table, flows[i])
        if first_number <= number < <int64_t>first_number + count:
            return True
    return False


cdef void table_insert(FlowTable* table, Flow* place, uint64_t hash, const Flow* flow) noexcept nogil:
    place[0] = flow[0]
    table.tags[place - table.flows] = tag_of(hash)
    table.used += 1
    table_count(table, place, 1)
    if table.sources.limited[place.slot]:
        sources_count(table.sources, place.slot, &place.client, place.protocol & FAMILY_IPV6, 1)


cdef void table_remove(FlowTable* table, Flow* flow) noexcept nogil:
    table.tags[flow - table.flows] = 0
    table.used -= 1
    table_count(table, flow, -1)
    if table.ports.size:
        ports_free(&table.ports, <uint32_t>(flow - table.flows))
    if table.sources.limited[flow.slot]:
        sources_count(table.sources, flow.slot, &flow.client, flow.protocol & FAMILY_IPV6, -1)


cdef int64_t table_number(const FlowTable* table, const Flow* flow) noexcept nogil:
    return ports_number(&table.ports, <uint32_t>(flow - table.flows))


cdef void table_count(FlowTable* table, const Flow* flow, int change) noexcept nogil:
    atomic_add(table.slot_flows + flow.slot, change)
    if flow.state == STATE_ESTABLISHED:
        atomic_add(table.slot_active + flow.slot, change)
    if not tcp_closing(flow.state):
        atomic_add(table.slot_open + flow.slot, change)


cdef void table_set_state(FlowTable* table, Flow* flow, uint8_t state) noexcept nogil:
    if state == flow.state:
        return
    if state == STATE_ESTABLISHED:
        atomic_add(table.slot_active + flow.slot, 1)
    elif flow.state == STATE_ESTABLISHED:
        atomic_add(table.slot_active + flow.slot, -1)
    if tcp_closing(state) != tcp_closing(flow.state):
        atomic_add(table.slot_open + flow.slot, -1 if tcp_closing(state) else 1)
    flow.state = state


cdef uint32_t table_expire(FlowTable* table, uint32_t first, uint32_t count, uint32_t tick) noexcept nogil:
    cdef uint32_t group
    cdef uint32_t removed = 0
    cdef unsigned occupied
    cdef Flow* flow
    for group in range(first, min(first + count, table.groups)):
        occupied = ~match16(table.tags + <size_t>group * GROUP, 0) & 0xFFFF
        while occupied:
            flow = table.flows + <size_t>group * GROUP + ctz(occupied)
            occupied &= occupied - 1
            if tick >= flow.deadline:
                table_remove(table, flow)
                removed += 1
    return removed


cdef uint32_t table_remove_slot(FlowTable* table, uint16_t slot, uint32_t first, uint32_t count) noexcept nogil:
    cdef uint64_t end = min(<uint64_t>first + count, <uint64_t>table.groups)
    cdef uint64_t group
    cdef uint32_t removed = 0
    cdef unsigned occupied
    cdef Flow* flow
    for group in range(first, end):
        occupied = ~match16(table.tags + <size_t>group * GROUP, 0) & 0xFFFF
        while occupied:
            flow = table.flows + <size_t>group * GROUP + ctz(occupied)
            occupied &= occupied - 1
            if flow.slot == slot:
                table_remove(table, flow)
                removed += 1
    return removed


cdef void table_prefetch_tags(const FlowTable* table, uint64_t hash) noexcept nogil:
    prefetch(table.tags + <size_t>first_group(table, hash) * GROUP)
    prefetch(table.tags + <size_t>second_group(table, hash) * GROUP)


cdef void table_prefetch_flow(const FlowTable* table, uint64_t hash) noexcept nogil:
    cdef size_t place = <size_t>first_group(table, hash) * GROUP
    cdef unsigned fits = match16(table.tags + place, tag_of(hash))
    cdef const uint8_t* flow
    if not fits:
        place = <size_t>second_group(table, hash) * GROUP
        fits = match16(table.tags + place, tag_of(hash))
        if not fits:
            return
    flow = <const uint8_t*>(table.flows + place + ctz(fits))
    prefetch(flow)
    prefetch(flow + sizeof(Flow) - 1)


cdef void table_prefetch_groups(const FlowTable* table, size_t first, size_t groups) noexcept nogil:
    cdef const uint8_t* start = <const uint8_t*>(table.flows + first * GROUP)
    cdef size_t at
    for at in range(0, groups * GROUP, 64):
        prefetch_to_read(table.tags + first * GROUP + at)
    for at in range(0, groups * GROUP * sizeof(Flow), 64):
        prefetch_to_read(start + at)


cdef void table_prefetch_number(const FlowTable* table, uint32_t number) noexcept nogil:
    prefetch(table.ports.places + number)


cdef void table_prefetch_place(const FlowTable* table, uint32_t number) noexcept nogil:
    cdef int64_t place = ports_place(&table.ports, number)
    if place >= 0:
        prefetch(table.flows + place)
        prefetch(<const uint8_t*>(table.flows + place + 1) - 1)
