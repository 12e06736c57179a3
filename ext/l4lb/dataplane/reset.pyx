"""TCP resets (docs/design/decision.md, section 9, "Answers")."""
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from l4lb.dataplane.checksum cimport put_checksum, sum_bytes, sum_pseudo
from l4lb.dataplane.packet cimport FAMILY_IPV6, FLAG_ACK, FLAG_FIN, FLAG_RST, FLAG_SYN, PROTO_TCP, be16, put16

cdef enum:
    IPV4_HEADER = 20
    IPV6_HEADER = 40
    TCP_HEADER = 20
    TTL = 64


cdef inline uint32_t be32(const uint8_t* p) noexcept nogil:
    return <uint32_t>be16(p) << 16 | be16(p + 2)


cdef inline void put32(uint8_t* p, uint32_t x) noexcept nogil:
    put16(p, x >> 16)
    put16(p + 2, x)


cdef uint8_t* build_reset(const Packet* packet, uint32_t* length) noexcept nogil:
    cdef bint ipv6 = packet.protocol & FAMILY_IPV6 != 0
    cdef const uint8_t* asked = packet.data + packet.l4
    cdef uint8_t* tcp = packet.data - TCP_HEADER
    cdef uint8_t* ip = tcp - (IPV6_HEADER if ipv6 else IPV4_HEADER)
    cdef uint32_t segment = packet.total - packet.l4 - (asked[12] >> 4) * 4
    cdef uint32_t v4
    memset(tcp, 0, TCP_HEADER)
    memcpy(tcp, &packet.dport_be, 2)
    memcpy(tcp + 2, &packet.sport_be, 2)
    tcp[12] = (TCP_HEADER // 4) << 4
    if packet.flags & FLAG_ACK:
        tcp[13] = FLAG_RST
        put32(tcp + 4, be32(asked + 8))
    else:
        tcp[13] = FLAG_RST | FLAG_ACK
        put32(tcp + 8, be32(asked + 4) + segment
              + (packet.flags & FLAG_FIN != 0) + (packet.flags & FLAG_SYN != 0))
    put_checksum(tcp + 16, sum_pseudo(&packet.destination, &packet.source, PROTO_TCP, TCP_HEADER)
                 + sum_bytes(tcp, TCP_HEADER))
    if ipv6:
        length[0] = IPV6_HEADER + TCP_HEADER
        memset(ip, 0, IPV6_HEADER)
        ip[0] = 0x60
        put16(ip + 4, TCP_HEADER)
        ip[6] = PROTO_TCP
        ip[7] = TTL
        memcpy(ip + 8, &packet.destination, 16)
        memcpy(ip + 24, &packet.source, 16)
        return ip
    length[0] = IPV4_HEADER + TCP_HEADER
    memset(ip, 0, IPV4_HEADER)
    ip[0] = 0x45
    put16(ip + 2, IPV4_HEADER + TCP_HEADER)
    ip[6] = 0x40    # DF: without it the identification would have to be another each time (RFC 6864)
    ip[8] = TTL
    ip[9] = PROTO_TCP
    v4 = <uint32_t>packet.destination.lo
    memcpy(ip + 12, &v4, 4)
    v4 = <uint32_t>packet.source.lo
    memcpy(ip + 16, &v4, 4)
    put_checksum(ip + 10, sum_bytes(ip, IPV4_HEADER))
    return ip
