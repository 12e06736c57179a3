"""A bounded table of flows for one worker.

Memory: `capacity` places of one tag byte and one 56-byte flow each, mapped once; nothing is allocated
afterwards. A flow stands in one of two groups of 16 places that its hash names, so that every search
looks at no more than 32 tags (two cache lines) and then at the flows whose tag fits, and no tombstones
are needed. Two choices keep the groups even: the table refuses its first flow at about 95 % full.

What only masqueraded flows have, their port, stands beside the table (`ports`), by place.

A place is free when its tag is 0. Expired flows are removed when they are met, when their place is
wanted, and by `expire_groups`, which the control plane calls for a few groups at a time.

Locking: none here; the owner (`Balancer`) holds its lock for a batch of packets.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from l4lb.dataplane.packet cimport Addr
from l4lb.dataplane.ports cimport Ports
from l4lb.dataplane.sources cimport Sources


cdef enum:
    GROUP = 16
    TICK_MS = 100       # deadlines are kept in tenths of a second: 13 years in 32 bits


cdef struct Flow:       # 56 bytes
    Addr client
    Addr vip
    uint16_t client_port_be
    uint16_t vip_port_be
    uint8_t protocol    # with FAMILY_IPV6
    uint8_t state
    uint16_t slot
    uint32_t deadline   # ticks
    uint32_t packets
    uint64_t bytes


cdef struct FlowTable:
    uint8_t* tags
    Flow* flows
    size_t mapped
    uint32_t groups     # a power of two
    uint32_t used
    # Counts by slot, shared by the tables of all workers.
    int* slot_flows
    int* slot_active
    int* slot_open      # not closing: what limits of backends count
    # Likewise, for the services that limit them.
    Sources* sources
    Ports ports


# `first_port` and `ports` are the worker's on every address of the masquerade pool.
cdef int table_open(FlowTable* table, uint64_t capacity, uint32_t first_port, uint32_t ports) except -1
cdef void table_close(FlowTable* table) noexcept nogil

# The flow with this key (`wanted` has the key fields set), or NULL. An expired one is removed.
cdef Flow* table_find(FlowTable* table, uint64_t hash, const Flow* wanted, uint32_t tick) noexcept nogil
# The same without removing anything, expired or not.
cdef Flow* table_peek(const FlowTable* table, uint64_t hash, const Flow* wanted) noexcept nogil
# Whether `table_place` would find room.
cdef bint table_has_room(const FlowTable* table, uint64_t hash, uint32_t tick) noexcept nogil
# A free place for a flow with this hash, or NULL where both its groups are full.
cdef Flow* table_place(FlowTable* table, uint64_t hash, uint32_t tick) noexcept nogil
# Occupies a place that `table_place` has just given.
cdef void table_insert(FlowTable* table, Flow* place, uint64_t hash, const Flow* flow) noexcept nogil
# Forgets a flow, and frees its masquerade port.
cdef void table_remove(FlowTable* table, Flow* flow) noexcept nogil
# Adds a flow to the counts of its slot, or with -1 takes it out.
cdef void table_count(FlowTable* table, const Flow* flow, int change) noexcept nogil
# The same for the expired flows that would have to make room for a new one with this hash.
cdef void table_count_crowded_out(FlowTable* table, uint64_t hash, uint32_t tick, int change) noexcept nogil
# Whether those expired flows that would have to make room for a new one with this hash have one of these
# masquerade ports.
cdef bint table_would_free_port(const FlowTable* table, uint64_t hash, uint32_t tick, uint32_t first_number,
                                uint32_t count) noexcept nogil
# The number of a flow's masquerade port, or NO_NUMBER.
cdef int64_t table_number(const FlowTable* table, const Flow* flow) noexcept nogil
cdef void table_set_state(FlowTable* table, Flow* flow, uint8_t state) noexcept nogil
# Removes the expired flows of `count` groups from `first` on; returns how many.
cdef uint32_t table_expire(FlowTable* table, uint32_t first, uint32_t count, uint32_t tick) noexcept nogil
# Removes the flows of `slot`, expired or not, in `count` groups from `first` on; returns how many.
cdef uint32_t table_remove_slot(FlowTable* table, uint16_t slot, uint32_t first, uint32_t count) noexcept nogil
# Two steps that bring a flow's memory near before `table_find` asks for it.
cdef void table_prefetch_tags(const FlowTable* table, uint64_t hash) noexcept nogil
cdef void table_prefetch_flow(const FlowTable* table, uint64_t hash) noexcept nogil
# The same for all flows of some groups, to be read.
cdef void table_prefetch_groups(const FlowTable* table, size_t first, size_t groups) noexcept nogil
# The same for a flow whose masquerade port is known by its number.
cdef void table_prefetch_number(const FlowTable* table, uint32_t number) noexcept nogil
cdef void table_prefetch_place(const FlowTable* table, uint32_t number) noexcept nogil
