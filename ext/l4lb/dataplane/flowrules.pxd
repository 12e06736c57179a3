"""What a packet says of the flow that it belongs to or begins: shared by decisions and previews."""
from libc.stdint cimport uint64_t

from l4lb.dataplane.core cimport Core
from l4lb.dataplane.flowtable cimport Flow, table_number
from l4lb.dataplane.hashing cimport Key, sip_words
from l4lb.dataplane.nativetable cimport (
    FORWARD_MASQUERADE,
    LEAVING_BY_MOVE,
    LEAVING_BY_RESET,
    FrontendView,
    Rules,
    ServiceView,
)
from l4lb.dataplane.packet cimport FAMILY_IPV6, FLAG_RST, FLAG_SYN, PROTO_TCP, Packet
from l4lb.dataplane.ports cimport NO_NUMBER
from l4lb.dataplane.reasons cimport REASON_NO_BACKEND, REASON_NO_FLOW, REASON_REJECTED
from l4lb.dataplane.tcp cimport tcp_cannot_begin, tcp_opens


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


cdef inline uint64_t hash_flow(const Key* key, const Flow* flow) noexcept nogil:
    cdef uint64_t message[5]
    cdef uint64_t ports = flow.client_port_be | <uint64_t>flow.vip_port_be << 16
    ports |= <uint64_t>(flow.protocol & 0x7F) << 32
    if flow.protocol & FAMILY_IPV6:
        message[0] = flow.client.hi
        message[1] = flow.client.lo
        message[2] = flow.vip.hi
        message[3] = flow.vip.lo
        message[4] = ports
        return sip_words(key, message, 5)
    message[0] = flow.client.lo | flow.vip.lo << 32
    message[1] = ports
    return sip_words(key, message, 2)


cdef inline bint is_tcp(const Packet* packet) noexcept nogil:
    return packet.protocol & 0x7F == PROTO_TCP


cdef inline bint is_served(const Core* core, const Flow* flow, int service) noexcept nogil:
    """Whether the flow can go on as it began: to a backend of the service, masqueraded or not."""
    cdef const Rules* rules = core.rules
    if flow.slot >= rules.slots_end or rules.backends[flow.slot].service != service:
        return False
    if core.table.ports.size == 0:
        return rules.services[service].forward != FORWARD_MASQUERADE
    return (
        (table_number(&core.table, flow) != NO_NUMBER) == (rules.services[service].forward == FORWARD_MASQUERADE)
    )


cdef enum Fate:         # of a flow that could go on
    STAYS
    IS_MOVED
    IS_RESET


cdef inline Fate fate_of(const Core* core, const Flow* flow, const Packet* packet) noexcept nogil:
    """What becomes of a flow that `is_served`."""
    cdef int leaving = core.rules.backends[flow.slot].leaving
    if leaving == 0:
        return STAYS
    if not is_tcp(packet):
        return IS_MOVED
    if leaving & LEAVING_BY_RESET and not packet.flags & (FLAG_SYN | FLAG_RST):
        return IS_RESET
    return IS_MOVED if leaving & (LEAVING_BY_RESET | LEAVING_BY_MOVE) else STAYS


cdef inline bint is_remembered(const ServiceView* service, const Packet* packet) noexcept nogil:
    """Whether a flow is remembered that this packet begins."""
    return not service.one_packet or is_tcp(packet)


cdef inline bint begins_unproven(const Packet* packet) noexcept nogil:
    """Whether a flood could send it: nothing in it shows that its source address is true."""
    return not is_tcp(packet) or tcp_opens(packet.flags)


cdef inline bint is_paced(const Core* core, const ServiceView* service, const Packet* packet,
                          uint64_t now_ms) noexcept nogil:
    """Whether as many flows as may be were remembered in this second from such a first packet."""
    return (
        core.rules.new_flows != 0
        and service.forward != FORWARD_MASQUERADE
        and is_remembered(service, packet)
        and begins_unproven(packet)
        and core.pace_second == now_ms // 1000
        and core.pace_begun >= core.rules.new_flows
    )


cdef enum:
    MAX_REJECTIONS = 1000   # l4lb.dataplane.table


cdef inline int refuse_to_begin(const Core* core, const ServiceView* service, const Packet* packet,
                                uint64_t now_ms) noexcept nogil:
    """Why this packet cannot begin a flow, whoever sends it; or -1."""
    if is_tcp(packet) and tcp_cannot_begin(packet.flags):
        return REASON_NO_FLOW
    if service.count:
        return -1
    if not service.rejects:
        return REASON_NO_BACKEND
    # A reset is no larger than what it answers; ICMP errors are to be limited (RFC 4443, section 2.4 f).
    if not is_tcp(packet) and core.rejected_second == now_ms // 1000 and core.rejected >= MAX_REJECTIONS:
        return REASON_NO_BACKEND
    return REASON_REJECTED
