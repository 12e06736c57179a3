"""What the packet path reads: a `Table` compiled into flat arrays.

Shared by the balancers of all workers and never changed, but for the turns of the schedulers, which the
workers take under one mutex. A change of the configuration compiles a new one.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from l4lb.dataplane.hashing cimport Key
from l4lb.dataplane.packet cimport Addr, same_addr

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t*, void*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_mutex_destroy(pthread_mutex_t*)


cdef enum:
    SLOTS = 65536
    POOL_PROTOCOL = 6       # any: addresses of the pool serve all protocols

cdef enum:
    ROUND_ROBIN
    WEIGHTED_ROUND_ROBIN
    LEAST_CONNECTIONS
    WEIGHTED_LEAST_CONNECTIONS
    SOURCE_HASH
    MAGLEV
    POWER_OF_TWO
    IN_ORDER            # failover, and overflow, which differs by the limits alone


cdef enum:
    FORWARD_NAT
    FORWARD_MASQUERADE
    FORWARD_DSR
    FORWARD_IPIP
    FORWARD_GUE


cdef enum:          # why known flows leave their backend, or some of them
    LEAVING_BY_RESET = 1    # `Table.resets`
    LEAVING_BY_MOVE = 2     # `Table.moves`
    LEAVING_DATAGRAMS = 4   # `ServiceEntry.one_packet`


cdef struct BackendView:
    Addr address
    uint16_t port_be        # 0 keeps the packet's
    uint8_t family          # FAMILY_IPV6 or 0
    uint8_t source_prefix   # of `source`, in bits
    int service             # -1 where the slot is not configured
    uint32_t mtu            # of the tunnel's way, 0: unknown
    uint32_t pool_first     # of the masquerade pool, and how many addresses of it
    uint32_t pool_count
    uint8_t takes_new       # flows: it has weight
    uint8_t leaving         # why known flows leave, LEAVING_…; 0: they stay
    uint32_t max_connections    # open flows with which it takes no new ones, 0: no limit
    uint32_t host           # of its affinity group: where its slots begin in `peers`, and 1; 0: it is none
    Addr source             # outer, of a tunnel


cdef struct ServiceView:
    int scheduler
    int forward
    bint sent               # packets are sent, not left to the kernel: masquerade and tunnels
    int seen                # the row of the TCP table for packets from the client
    uint32_t count          # backends with weight
    uint32_t first          # of them in `slots` and `weights`
    uint64_t weight
    const uint16_t* lookup
    uint32_t lookup_size
    uint32_t first_vip      # in `marked_vips`
    uint32_t vips
    uint32_t source_new_flows   # limits of one client address, 0: none
    uint32_t source_flows
    uint32_t number         # of the service among its sources' places
    bint shares_hash        # with the kernel: places of `lookup` are found by `kernel_hash`
    uint32_t kernel_seed
    bint one_packet         # datagrams are not remembered
    void* custom            # a `Guard`, which the table's source keeps alive; NULL: none
    bint rejects            # clients are told where no backend takes new flows
    bint has_affinity
    uint64_t affinity_ms
    Addr affinity_masks[2]  # of an IPv4 and an IPv6 client
    uint32_t affinity_number    # of the service, or its group, among the places of clients
    uint32_t affinity_group     # counted from 1, 0: none
    uint32_t affinity_member    # which of the group's services it is


cdef struct VipView:
    Addr address
    uint8_t family


cdef struct RangeView:      # ports of a VIP: `value` is a service; of an endpoint: a segment
    uint16_t first
    uint16_t last
    uint32_t value


cdef struct AddressView:    # a VIP or a backend address, with its port ranges
    Addr address
    uint8_t protocol        # with FAMILY_IPV6; 0 marks an empty place
    uint32_t first_range
    uint32_t ranges


cdef struct AddressMap:
    AddressView* places
    uint32_t mask
    RangeView* ranges


cdef struct FrontendView:
    Addr address
    uint16_t port_be
    uint16_t slot
    uint32_t index


cdef struct SegmentView:
    uint32_t first_frontend
    uint32_t count


cdef struct Rules:
    BackendView* backends   # by slot
    uint32_t slots_end
    ServiceView* services
    uint32_t service_count
    VipView* marked_vips    # of services with direct return, in the order of their numbers
    uint16_t* slots
    uint32_t* weights
    uint32_t entries
    uint16_t* peers         # by host of an affinity group: its slot in each service of the group
    AddressMap vips
    AddressMap endpoints
    SegmentView* segments
    FrontendView* frontends
    AddressMap pool         # under POOL_PROTOCOL, one range each, whose value is the address's index
    Addr* pool_addresses
    uint32_t pool_size
    uint32_t timeout_ms[8]
    bint learns
    uint32_t new_flows
    uint16_t gue_port
    pthread_mutex_t turns
    bint foresees           # set under `turns`: what is chosen now is only a preview
    uint32_t* cursors       # by service
    int64_t* currents       # by entry, for smooth weighted round-robin
    int64_t* spare          # as large, for a preview to put them back


cdef class NativeTable:
    cdef readonly object source
    cdef object keep        # owns the lookup tables
    cdef Rules rules
    cdef int compile_services(self, source) except -1
    cdef int compile_backends(self, ServiceView* service, int index, s) except -1
    cdef int compile_groups(self, source) except -1
    cdef int compile_leaving(self, source) except -1
    cdef int compile_answers(self, source) except -1
    cdef int compile_pool(self, source) except -1
    cdef keep_turns(self, NativeTable previous)
    cdef number_services(self, const Key* key)


cdef void* zeros(size_t count, size_t size) except NULL


cdef inline uint32_t spread(const Addr* address, uint8_t protocol) noexcept nogil:
    """Where an address begins to look for its place. Needs no key: only configured addresses have one."""
    cdef uint64_t x = (address.hi ^ (address.lo * <uint64_t>0x9E3779B97F4A7C15)) + protocol
    x *= <uint64_t>0x9E3779B97F4A7C15
    return <uint32_t>(x >> 32)


cdef inline int find_value(const AddressMap* where, const Addr* address, uint8_t protocol,
                           uint16_t port) noexcept nogil:
    """The value of the range that holds the port, or -1. Ranges are few: mostly one."""
    cdef uint32_t place = spread(address, protocol) & where.mask
    cdef const AddressView* view
    cdef const RangeView* ranges
    cdef uint32_t low, high, middle
    while True:
        view = where.places + place
        if view.protocol == 0:
            return -1
        if view.protocol == protocol and same_addr(&view.address, address):
            break
        place = (place + 1) & where.mask
    ranges = where.ranges + view.first_range
    low = 0
    high = view.ranges
    while low < high:
        middle = (low + high) // 2
        if ranges[middle].last < port:
            low = middle + 1
        else:
            high = middle
    if low < view.ranges and ranges[low].first <= port:
        return <int>ranges[low].value
    return -1
