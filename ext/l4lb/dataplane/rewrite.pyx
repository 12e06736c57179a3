"""Rewriting (docs/design/decision.md, section 9, "Checksums")."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from l4lb.dataplane.checksum cimport fold, put_checksum, sum_addr, sum_bytes, sum_pseudo, update
from l4lb.dataplane.packet cimport FAMILY_IPV6, PROTO_UDP, be16

cdef enum:
    UDP_CHECKSUM = 6
    TCP_CHECKSUM = 16


cdef inline bint is_udp(const Packet* packet) noexcept nogil:
    return packet.protocol & 0x7F == PROTO_UDP


cdef inline uint8_t* checksum_field(const Packet* packet) noexcept nogil:
    return packet.data + packet.l4 + (UDP_CHECKSUM if is_udp(packet) else TCP_CHECKSUM)


cdef uint32_t covered_length(const Packet* packet) noexcept nogil:
    """Bytes that the transport checksum covers besides the pseudo header."""
    cdef uint32_t said
    if is_udp(packet):
        said = be16(packet.data + packet.l4 + 4)
        if said:
            return said
    return packet.total - packet.l4


cdef uint64_t sum_own_pseudo(const Packet* packet) noexcept nogil:
    return sum_pseudo(&packet.source, &packet.destination, packet.protocol & 0x7F, covered_length(packet))


cdef void spare_zero(const Packet* packet) noexcept nogil:
    """A UDP checksum of 0 would say that there is none (RFC 768)."""
    cdef uint8_t* field = checksum_field(packet)
    if is_udp(packet) and field[0] == 0 and field[1] == 0:
        field[0] = field[1] = 0xFF


cdef void finish_checksum(Packet* packet) noexcept nogil:
    cdef uint8_t* field = checksum_field(packet)
    if packet.checksum_ready:
        return
    field[0] = field[1] = 0
    put_checksum(field, sum_own_pseudo(packet) + sum_bytes(packet.data + packet.l4, covered_length(packet)))
    spare_zero(packet)
    packet.checksum_ready = True


cdef void mend_transport(Packet* packet, uint64_t old, uint64_t new) noexcept nogil:
    """The transport checksum, after addresses or ports whose sum was `old` have become `new`."""
    cdef uint8_t* field = checksum_field(packet)
    cdef uint16_t checksum
    if packet.checksum_ready:
        if is_udp(packet) and field[0] == 0 and field[1] == 0 and not packet.protocol & FAMILY_IPV6:
            return
        update(field, old, new)
        spare_zero(packet)
    elif packet.gso:
        checksum = fold(sum_own_pseudo(packet))
        memcpy(field, &checksum, 2)
    else:
        finish_checksum(packet)


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


cdef void spend_hop(Packet* packet) noexcept nogil:
    cdef uint16_t old, new
    if packet.protocol & FAMILY_IPV6:
        packet.data[7] -= 1
        return
    memcpy(&old, packet.data + 8, 2)
    packet.data[8] -= 1
    memcpy(&new, packet.data + 8, 2)
    update(packet.data + 10, old, new)
