"""Parsing of IPv4 and IPv6, TCP and UDP (docs/design/decision.md, section 1).

Everything is read through bounds: `have` is how far memory goes, `total` how far the packet says it
goes. Nothing is copied and nothing raises; a packet that cannot be read has a reason.
"""
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from l4lb.dataplane.reasons cimport (
    REASON_FRAGMENT,
    REASON_MALFORMED,
    REASON_OTHER_PROTOCOL,
    REASON_SOURCE_ROUTED,
    REASON_TRUNCATED,
)

cdef enum:
    MAX_EXTENSIONS = 8
    EXT_HOP_BY_HOP = 0
    EXT_ROUTING = 43
    EXT_FRAGMENT = 44
    EXT_DESTINATION = 60


cdef Addr load_addr(bytes raw) except *:
    """An address of 4 or 16 bytes; ValueError for any other length."""
    cdef Addr addr
    cdef uint32_t v4
    addr.hi = 0
    if len(raw) == 4:
        memcpy(&v4, <const char*>raw, 4)
        addr.lo = v4
    elif len(raw) == 16:
        memcpy(&addr, <const char*>raw, 16)
    else:
        raise ValueError(f"an address has 4 or 16 bytes, not {len(raw)}")
    return addr


cdef bytes dump_addr(const Addr* addr, uint8_t protocol):
    if protocol & FAMILY_IPV6:
        return (<const char*>addr)[:16]
    return (<const char*>&addr.lo)[:4]


cdef int parse(Packet* packet, uint8_t* data, uint32_t have, uint32_t length,
               bint checksum_ready, bint gso) noexcept nogil:
    packet.data = data
    packet.have = have
    packet.checksum_ready = checksum_ready
    packet.gso = gso
    if have < 1:
        return REASON_TRUNCATED
    if data[0] >> 4 == 4:
        return parse_ipv4(packet, length)
    if data[0] >> 4 == 6:
        return parse_ipv6(packet, length)
    return REASON_MALFORMED


cdef int parse_ipv4(Packet* packet, uint32_t length) noexcept nogil:
    cdef const uint8_t* data = packet.data
    cdef uint32_t header, v4
    if packet.have < 20:
        return REASON_TRUNCATED
    header = (data[0] & 15) * 4
    if header < 20:
        return REASON_MALFORMED
    packet.total = be16(data + 2)
    if packet.total == 0 and packet.gso:
        packet.total = length
    if packet.total < header or packet.total > length:
        return REASON_MALFORMED
    if packet.have < header:
        return REASON_TRUNCATED
    if be16(data + 6) & 0x3FFF:
        return REASON_FRAGMENT
    memcpy(&v4, data + 12, 4)
    packet.source.hi = 0
    packet.source.lo = v4
    memcpy(&v4, data + 16, 4)
    packet.destination.hi = 0
    packet.destination.lo = v4
    packet.l4 = header
    packet.protocol = data[9]
    return parse_transport(packet, data[9])


cdef int parse_ipv6(Packet* packet, uint32_t length) noexcept nogil:
    cdef const uint8_t* data = packet.data
    cdef uint32_t l4 = 40
    cdef uint8_t protocol
    cdef int walked = 0
    if packet.have < 40:
        return REASON_TRUNCATED
    packet.total = 40 + be16(data + 4)
    if packet.total == 40 and packet.gso:
        packet.total = length
    if packet.total > length:
        return REASON_MALFORMED
    protocol = data[6]
    while protocol in (EXT_HOP_BY_HOP, EXT_ROUTING, EXT_FRAGMENT, EXT_DESTINATION):
        if walked == MAX_EXTENSIONS or l4 + 8 > packet.total:
            return REASON_MALFORMED
        if l4 + 8 > packet.have:
            return REASON_TRUNCATED
        if protocol == EXT_HOP_BY_HOP and walked:
            return REASON_MALFORMED
        if protocol == EXT_ROUTING and data[l4 + 3]:
            return REASON_SOURCE_ROUTED
        if protocol == EXT_FRAGMENT:
            if be16(data + l4 + 2) & 0xFFF9:
                return REASON_FRAGMENT
            protocol = data[l4]
            l4 += 8
        else:
            protocol = data[l4]
            l4 += (<uint32_t>data[l4 + 1] + 1) * 8
        walked += 1
    memcpy(&packet.source, data + 8, 16)
    memcpy(&packet.destination, data + 24, 16)
    packet.l4 = l4
    packet.protocol = protocol | FAMILY_IPV6
    return parse_transport(packet, protocol)


cdef int parse_transport(Packet* packet, uint8_t protocol) noexcept nogil:
    cdef const uint8_t* l4 = packet.data + packet.l4
    cdef uint32_t fixed, said
    if protocol == PROTO_TCP:
        fixed = 20
    elif protocol == PROTO_UDP:
        fixed = 8
    else:
        return REASON_OTHER_PROTOCOL
    if packet.l4 + fixed > packet.total:
        return REASON_MALFORMED
    if packet.l4 + fixed > packet.have:
        return REASON_TRUNCATED
    memcpy(&packet.sport_be, l4, 2)
    memcpy(&packet.dport_be, l4 + 2, 2)
    if protocol == PROTO_TCP:
        said = (l4[12] >> 4) * 4
        packet.flags = l4[13]
        if said < 20:
            return REASON_MALFORMED
    else:
        said = be16(l4 + 4)
        packet.flags = 0
        if said < 8 and not (said == 0 and packet.gso):
            return REASON_MALFORMED
    if packet.l4 + said > packet.total:
        return REASON_MALFORMED
    return -1
