"""Parsing and rewriting of IPv4 and IPv6, TCP and UDP (docs/design/decision.md, sections 1 and 9).

Everything is read through bounds: `have` is how far memory goes, `total` how far the packet says it
goes. Nothing is copied and nothing raises; a packet that cannot be read has a reason.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
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
    UDP_CHECKSUM = 6
    TCP_CHECKSUM = 16


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


# Checksums. Sums are over 16-bit words in memory order: one's complement addition does not care
# about byte order (RFC 1071, section 2), so nothing is swapped.

cdef inline uint16_t fold(uint64_t total) noexcept nogil:
    total = <uint64_t><uint32_t>total + (total >> 32)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return <uint16_t>total


cdef inline uint64_t sum_addr(const Addr* addr) noexcept nogil:
    """The 16-bit words of an address; four 32-bit pieces cannot overflow 64 bits."""
    return <uint64_t><uint32_t>addr.hi + (addr.hi >> 32) + <uint32_t>addr.lo + (addr.lo >> 32)


cdef uint64_t sum_bytes(const uint8_t* data, uint32_t length) noexcept nogil:
    cdef uint64_t total = 0
    cdef uint32_t word
    cdef uint16_t half
    while length >= 4:
        memcpy(&word, data, 4)
        total += word
        data += 4
        length -= 4
    if length >= 2:
        memcpy(&half, data, 2)
        total += half
        data += 2
        length -= 2
    if length:
        half = 0
        memcpy(&half, data, 1)
        total += half
    return total


cdef inline void update(uint8_t* field, uint64_t old, uint64_t new) noexcept nogil:
    """RFC 1624, equation 3: HC' = ~(~HC + ~m + m')."""
    cdef uint16_t checksum
    memcpy(&checksum, field, 2)
    checksum = ~fold(<uint64_t><uint16_t>~checksum + <uint16_t>~fold(old) + new)
    memcpy(field, &checksum, 2)


cdef uint64_t sum_pseudo(const Packet* packet, uint32_t length) noexcept nogil:
    """The pseudo header (RFC 9293, section 3.1; RFC 8200, section 8.1)."""
    cdef uint8_t tail[8]
    tail[0] = <uint8_t>(length >> 24)
    tail[1] = <uint8_t>(length >> 16)
    tail[2] = <uint8_t>(length >> 8)
    tail[3] = <uint8_t>length
    tail[4] = tail[5] = tail[6] = 0
    tail[7] = packet.protocol & 0x7F
    return sum_addr(&packet.source) + sum_addr(&packet.destination) + sum_bytes(tail, 8)


cdef void mend_transport(Packet* packet, uint64_t old, uint64_t new) noexcept nogil:
    """The transport checksum, after addresses or ports whose sum was `old` have become `new`."""
    cdef bint udp = packet.protocol & 0x7F == PROTO_UDP
    cdef uint8_t* field = packet.data + packet.l4 + (UDP_CHECKSUM if udp else TCP_CHECKSUM)
    cdef uint32_t length = packet.total - packet.l4
    cdef uint32_t said
    cdef uint16_t checksum
    if udp:
        said = be16(packet.data + packet.l4 + 4)
        if said:
            length = said
    memcpy(&checksum, field, 2)
    if packet.checksum_ready:
        if udp and checksum == 0 and not packet.protocol & FAMILY_IPV6:
            return
        update(field, old, new)
    elif packet.gso:
        checksum = fold(sum_pseudo(packet, length))
        memcpy(field, &checksum, 2)
        return
    else:
        checksum = 0
        memcpy(field, &checksum, 2)
        checksum = ~fold(sum_pseudo(packet, length) + sum_bytes(packet.data + packet.l4, length))
        memcpy(field, &checksum, 2)
    if udp:
        memcpy(&checksum, field, 2)
        if checksum == 0:
            field[0] = field[1] = 0xFF


cdef void write_addr(Packet* packet, uint32_t at_ipv4, uint32_t at_ipv6, const Addr* was,
                     const Addr* addr) noexcept nogil:
    cdef uint32_t v4
    if packet.protocol & FAMILY_IPV6:
        memcpy(packet.data + at_ipv6, addr, 16)
    else:
        v4 = <uint32_t>addr.lo
        memcpy(packet.data + at_ipv4, &v4, 4)
        update(packet.data + 10, sum_addr(was), sum_addr(addr))


cdef void rewrite_destination(Packet* packet, const Addr* addr, uint16_t port_be) noexcept nogil:
    cdef Addr was = packet.destination
    cdef uint16_t port_was = packet.dport_be
    if port_be == 0:
        port_be = port_was
    write_addr(packet, 16, 24, &was, addr)
    memcpy(packet.data + packet.l4 + 2, &port_be, 2)
    packet.destination = addr[0]
    packet.dport_be = port_be
    mend_transport(packet, sum_addr(&was) + port_was, sum_addr(addr) + port_be)


cdef void rewrite_source(Packet* packet, const Addr* addr, uint16_t port_be) noexcept nogil:
    cdef Addr was = packet.source
    cdef uint16_t port_was = packet.sport_be
    if port_be == 0:
        port_be = port_was
    write_addr(packet, 12, 8, &was, addr)
    memcpy(packet.data + packet.l4, &port_be, 2)
    packet.source = addr[0]
    packet.sport_be = port_be
    mend_transport(packet, sum_addr(&was) + port_was, sum_addr(addr) + port_be)
