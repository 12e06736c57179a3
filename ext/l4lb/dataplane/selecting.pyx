"""Selections of flows (see selecting.pxd)."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from l4lb.dataplane.core cimport Core
from l4lb.dataplane.flowtable cimport GROUP, TICK_MS, Flow, table_prefetch_groups
from l4lb.dataplane.handover cimport Record, copy_records
from l4lb.dataplane.nativetable cimport SLOTS, pthread_mutex_lock, pthread_mutex_unlock
from l4lb.dataplane.packet cimport FAMILY_IPV6, Addr, load_addr, swap16

from l4lb.dataplane.decision import State
from l4lb.dataplane.selection import Order

cdef extern from *:
    """
    static inline uint64_t l4lb_swap64(uint64_t x) { return __builtin_bswap64(x); }
    """
    uint64_t swap64 "l4lb_swap64"(uint64_t x) noexcept nogil


cdef enum:      # as `Order` has them
    BY_CLIENT = 0
    BY_LISTEN = 1
    BY_RANK = 2
    BY_STATE = 3
    BY_EXPIRES = 4
    BY_SEEN = 5
    BY_PACKETS = 6
    BY_BYTES = 7


cdef int load_selection(Sought* sought, selection) except -1:
    cdef bytes address
    cdef Flow last
    sought.limit = selection.limit
    sought.order = <int>Order(selection.order)
    sought.descending = selection.descending
    sought.tick = <uint32_t>(<uint64_t>selection.now_ms // TICK_MS)
    sought.state = -1 if selection.state is None else <int>selection.state
    sought.slots = NULL
    sought.ranks = NULL
    if selection.slots is not None:
        if len(selection.slots) != SLOTS:
            raise ValueError(f"a byte for each of {SLOTS} slots is needed, not {len(selection.slots)}")
        sought.slots = <const uint8_t*>selection.slots
    if selection.ranks is not None:
        if len(selection.ranks) != SLOTS * sizeof(uint32_t):
            raise ValueError(f"a rank for each of {SLOTS} slots is needed")
        sought.ranks = <const uint32_t*><const uint8_t*>selection.ranks
    sought.by_network = selection.network is not None
    if sought.by_network:
        address, length = selection.network
        if not 0 <= length <= len(address) * 8:
            raise ValueError(f"an address of {len(address)} bytes has no prefix of {length} bits")
        # Of Python's numbers, which hold 128 bits.
        ones = ((<object>1 << length) - 1) << len(address) * 8 - length
        sought.network = load_addr(address)
        sought.mask = load_addr(ones.to_bytes(len(address)))
        sought.network.hi &= sought.mask.hi
        sought.network.lo &= sought.mask.lo
        sought.family = FAMILY_IPV6 if len(address) == 16 else 0
    for state in State:
        sought.timeouts_ms[<int>state] = selection.timeouts.of(state)
    sought.goes_on = selection.after is not None
    if sought.goes_on:
        value, client, client_port, vip, vip_port, protocol = selection.after
        last.client = load_addr(client)
        last.vip = load_addr(vip)
        last.client_port_be = swap16(client_port)
        last.vip_port_be = swap16(vip_port)
        last.protocol = protocol | (FAMILY_IPV6 if len(client) == 16 else 0)
        fill_key(sought, &last, value, sought.after)
    return 0


cdef inline int64_t value_of(const Sought* sought, const Flow* flow) noexcept nogil:
    if sought.order == BY_RANK:
        return sought.ranks[flow.slot] if sought.ranks != NULL else 0
    if sought.order == BY_STATE:
        return flow.state
    if sought.order == BY_EXPIRES:
        return <int64_t>flow.deadline * TICK_MS
    if sought.order == BY_SEEN:
        return <int64_t>flow.deadline * TICK_MS - sought.timeouts_ms[flow.state]
    if sought.order == BY_PACKETS:
        return flow.packets
    if sought.order == BY_BYTES:
        return <int64_t>flow.bytes
    return 0


cdef inline void fill_key(const Sought* sought, const Flow* flow, int64_t value, uint64_t* key) noexcept nogil:
    """Words that compare as `Selection.key_of` does; inverted where the order is descending."""
    cdef const Addr* first = &flow.client
    cdef const Addr* second = &flow.vip
    cdef uint64_t vip = <uint64_t>swap16(flow.vip_port_be) << 8 | (flow.protocol & 0x7F)
    cdef uint64_t client = swap16(flow.client_port_be)
    cdef bint by_listen = sought.order == BY_LISTEN
    cdef int i
    if by_listen:
        first, second = second, first
    key[0] = <uint64_t>value ^ <uint64_t>1 << 63
    key[1] = flow.protocol & FAMILY_IPV6
    key[2] = swap64(first.hi)
    key[3] = swap64(first.lo)
    key[4] = vip if by_listen else client
    key[5] = swap64(second.hi)
    key[6] = swap64(second.lo)
    key[7] = client if by_listen else vip
    if sought.descending:
        for i in range(WORDS):
            key[i] = ~key[i]


cdef inline bint is_before(const uint64_t* a, const uint64_t* b) noexcept nogil:
    cdef int i
    for i in range(WORDS):
        if a[i] != b[i]:
            return a[i] < b[i]
    return False


cdef inline bint matches(const Sought* sought, const Flow* flow) noexcept nogil:
    if sought.tick >= flow.deadline:
        return False
    if sought.slots != NULL and not sought.slots[flow.slot]:
        return False
    if sought.state >= 0 and flow.state != sought.state:
        return False
    return not sought.by_network or (
        (flow.protocol & FAMILY_IPV6) == sought.family
        and (flow.client.hi & sought.mask.hi) == sought.network.hi
        and (flow.client.lo & sought.mask.lo) == sought.network.lo
    )


cdef void sink(Heap* heap, const Entry* entry) noexcept nogil:
    """Puts an entry in the place of the top, and below whatever comes behind it."""
    cdef uint64_t at = 0
    cdef uint64_t child = 1
    while child < heap.count:
        if child + 1 < heap.count and is_before(heap.entries[child].key, heap.entries[child + 1].key):
            child += 1
        if not is_before(entry.key, heap.entries[child].key):
            break
        heap.entries[at] = heap.entries[child]
        at = child
        child = 2 * at + 1
    heap.entries[at] = entry[0]


cdef void rise(Heap* heap, const Entry* entry) noexcept nogil:
    """Adds an entry."""
    cdef uint64_t at = heap.count
    cdef uint64_t parent
    heap.count += 1
    while at:
        parent = (at - 1) // 2
        if not is_before(heap.entries[parent].key, entry.key):
            break
        heap.entries[at] = heap.entries[parent]
        at = parent
    heap.entries[at] = entry[0]


cdef void consider(const Sought* sought, Heap* heap, const Record* record) noexcept nogil:
    cdef Entry entry
    if not matches(sought, &record.flow):
        return
    heap.matched += 1
    if sought.limit == 0:
        return
    fill_key(sought, &record.flow, value_of(sought, &record.flow), entry.key)
    if sought.goes_on and not is_before(sought.after, entry.key):
        return
    entry.record = record[0]
    if heap.count < sought.limit:
        rise(heap, &entry)
    elif is_before(entry.key, heap.entries[0].key):
        sink(heap, &entry)


cdef void put_in_order(Heap* heap) noexcept nogil:
    """From a heap to a sorted list: the top, which is the last, goes to the end of what is left."""
    cdef uint64_t count = heap.count
    cdef Entry moved
    while heap.count > 1:
        heap.count -= 1
        moved = heap.entries[heap.count]
        heap.entries[heap.count] = heap.entries[0]
        sink(heap, &moved)
    heap.count = count


cdef void select_flows(Core* core, const Sought* sought, Heap* heap, Record* records) noexcept nogil:
    cdef size_t first = 0
    cdef size_t groups, found, i
    heap.count = 0
    heap.matched = 0
    while first < core.table.groups:
        groups = min(<size_t>STEP, core.table.groups - first)
        table_prefetch_groups(&core.table, first, groups)
        pthread_mutex_lock(&core.mutex)
        found = copy_records(core, records, first * GROUP, groups * GROUP)
        pthread_mutex_unlock(&core.mutex)
        first += groups
        for i in range(found):
            consider(sought, heap, records + i)
    put_in_order(heap)
