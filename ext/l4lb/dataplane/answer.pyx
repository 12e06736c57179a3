"""ICMP errors (docs/design/decision.md, section 9, "Answers")."""
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from l4lb.dataplane.checksum cimport put_checksum, sum_bytes, sum_pseudo
from l4lb.dataplane.packet cimport FAMILY_IPV6, put16

cdef enum:
    IPV4_HEADER = 20
    IPV6_HEADER = 40
    ICMP_HEADER = 8
    TTL = 64
    INTERNETWORK_CONTROL = 0xC0     # the TOS of RFC 1812, section 4.3.2.5
    QUOTE_IPV4 = 548                # 576 with the headers, which every host takes
    QUOTE_IPV6 = 1232               # 1280, the least MTU
    PROTO_ICMP = 1
    PROTO_ICMPV6 = 58


cdef uint8_t* put_error(const Packet* packet, uint8_t type_ipv4, uint8_t code_ipv4, uint8_t type_ipv6,
                        uint8_t code_ipv6, uint32_t value, uint32_t* length) noexcept nogil:
    """`value` goes into the last four bytes of the ICMP header."""
    cdef bint ipv6 = packet.protocol & FAMILY_IPV6 != 0
    cdef uint32_t quote = min(packet.total, packet.have, <uint32_t>(QUOTE_IPV6 if ipv6 else QUOTE_IPV4))
    cdef uint8_t* icmp = packet.data - ICMP_HEADER
    cdef uint8_t* ip = icmp - (IPV6_HEADER if ipv6 else IPV4_HEADER)
    cdef uint32_t v4
    icmp[0] = type_ipv6 if ipv6 else type_ipv4
    icmp[1] = code_ipv6 if ipv6 else code_ipv4
    icmp[2] = icmp[3] = 0
    put16(icmp + 4, value >> 16)
    put16(icmp + 6, value)
    if ipv6:
        memset(ip, 0, IPV6_HEADER)
        ip[0] = 0x60
        put16(ip + 4, ICMP_HEADER + quote)
        ip[6] = PROTO_ICMPV6
        ip[7] = TTL
        memcpy(ip + 8, &packet.destination, 16)
        memcpy(ip + 24, &packet.source, 16)
        put_checksum(icmp + 2, sum_pseudo(&packet.destination, &packet.source, PROTO_ICMPV6, ICMP_HEADER + quote)
                     + sum_bytes(icmp, ICMP_HEADER + quote))
        length[0] = IPV6_HEADER + ICMP_HEADER + quote
        return ip
    put_checksum(icmp + 2, sum_bytes(icmp, ICMP_HEADER + quote))
    memset(ip, 0, IPV4_HEADER)
    ip[0] = 0x45
    ip[1] = INTERNETWORK_CONTROL
    put16(ip + 2, IPV4_HEADER + ICMP_HEADER + quote)
    ip[8] = TTL
    ip[9] = PROTO_ICMP
    v4 = <uint32_t>packet.destination.lo
    memcpy(ip + 12, &v4, 4)
    v4 = <uint32_t>packet.source.lo
    memcpy(ip + 16, &v4, 4)
    put_checksum(ip + 10, sum_bytes(ip, IPV4_HEADER))
    length[0] = IPV4_HEADER + ICMP_HEADER + quote
    return ip


cdef uint8_t* answer_ttl_expired(const Packet* packet, uint32_t* length) noexcept nogil:
    return put_error(packet, 11, 0, 3, 0, 0, length)


cdef uint8_t* answer_port_unreachable(const Packet* packet, uint32_t* length) noexcept nogil:
    return put_error(packet, 3, 3, 1, 4, 0, length)


cdef uint8_t* answer_too_big(const Packet* packet, uint32_t mtu, uint32_t* length) noexcept nogil:
    if not packet.protocol & FAMILY_IPV6:
        mtu = min(mtu, <uint32_t>0xFFFF)  # the field has two bytes
    return put_error(packet, 3, 4, 2, 0, mtu, length)
