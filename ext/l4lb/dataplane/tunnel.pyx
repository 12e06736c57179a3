"""Tunnels (docs/design/decision.md, section 9, "ipip, gue")."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from l4lb.dataplane.checksum cimport put_checksum, sum_bytes, sum_pseudo
from l4lb.dataplane.packet cimport FAMILY_IPV6, PROTO_UDP, Addr, keeps_whole, put16
from l4lb.dataplane.rewrite cimport finish_checksum, spend_hop

cdef extern from "<endian.h>" nogil:
    uint32_t be32toh(uint32_t)
    uint32_t htobe32(uint32_t)
    uint64_t be64toh(uint64_t)
    uint64_t htobe64(uint64_t)

cdef enum:
    IPV4_HEADER = 20
    IPV6_HEADER = 40
    GUE_HEADERS = 12        # UDP and GUE
    FIRST_GUE_PORT = 49152  # the 16384 ports from here on are nobody's (RFC 6335): 14 bits of the hash
    INSIDE_IPV4 = 4
    INSIDE_IPV6 = 41
    OUTER_TTL = 64


cdef uint32_t tunnel_overhead(const BackendView* backend, bint gue) noexcept nogil:
    return (IPV6_HEADER if backend.family else IPV4_HEADER) + (GUE_HEADERS if gue else 0)


cdef Addr outer_source(const BackendView* backend, uint64_t hash) noexcept nogil:
    """The backend's source with the bits behind its prefix taken from the hash."""
    cdef Addr addr = backend.source
    cdef uint32_t bits = (128 if backend.family else 32) - backend.source_prefix
    cdef uint64_t mask
    if backend.family:
        mask = ~<uint64_t>0 if bits >= 64 else (<uint64_t>1 << bits) - 1
        addr.lo = htobe64((be64toh(addr.lo) & ~mask) | (hash & mask))
    else:
        mask = (<uint64_t>1 << bits) - 1
        addr.lo = htobe32(<uint32_t>((be32toh(<uint32_t>addr.lo) & ~mask) | (hash >> 32 & mask)))
    return addr


cdef void put_ipv4(uint8_t* outer, uint32_t length, uint8_t tos, bint keep_whole, uint8_t protocol,
                   const Addr* source, const Addr* destination) noexcept nogil:
    cdef uint32_t v4
    memset(outer, 0, IPV4_HEADER)
    outer[0] = 0x45
    outer[1] = tos
    put16(outer + 2, length)
    outer[6] = 0x40 if keep_whole else 0
    outer[8] = OUTER_TTL
    outer[9] = protocol
    v4 = <uint32_t>source.lo
    memcpy(outer + 12, &v4, 4)
    v4 = <uint32_t>destination.lo
    memcpy(outer + 16, &v4, 4)
    put_checksum(outer + 10, sum_bytes(outer, IPV4_HEADER))


cdef void put_ipv6(uint8_t* outer, uint32_t payload, uint8_t traffic_class, uint32_t label, uint8_t protocol,
                   const Addr* source, const Addr* destination) noexcept nogil:
    outer[0] = <uint8_t>(0x60 | traffic_class >> 4)
    outer[1] = <uint8_t>(traffic_class << 4 | label >> 16)
    put16(outer + 2, label)
    put16(outer + 4, payload)
    outer[6] = protocol
    outer[7] = OUTER_TTL
    memcpy(outer + 8, source, 16)
    memcpy(outer + 24, destination, 16)


cdef void put_gue(uint8_t* udp, uint32_t length, uint16_t port, uint8_t inside, uint64_t hash) noexcept nogil:
    put16(udp, FIRST_GUE_PORT + <uint32_t>(hash >> 50))
    put16(udp + 2, port)
    put16(udp + 4, length)
    memset(udp + 6, 0, 6)
    udp[9] = inside


cdef uint8_t* tunnel_wrap(Packet* packet, const BackendView* backend, bint gue, uint16_t gue_port,
                          uint64_t hash) noexcept nogil:
    cdef uint32_t overhead = tunnel_overhead(backend, gue)
    cdef uint8_t* outer = packet.data - overhead
    cdef uint8_t* udp = packet.data - GUE_HEADERS
    cdef bint from_ipv6 = packet.protocol & FAMILY_IPV6 != 0
    cdef uint8_t inside = INSIDE_IPV6 if from_ipv6 else INSIDE_IPV4
    cdef uint8_t protocol = PROTO_UDP if gue else inside
    cdef uint8_t traffic_class = packet.data[1]
    cdef Addr source = outer_source(backend, hash)
    # A sum of more than 16 bits is cut in the length fields: such a packet cannot be sent, which is the kernel's
    # to say.
    cdef uint32_t length = packet.total + overhead
    if from_ipv6:
        traffic_class = <uint8_t>(packet.data[0] << 4 | packet.data[1] >> 4)
    finish_checksum(packet)
    spend_hop(packet)
    if gue:
        put_gue(udp, packet.total + GUE_HEADERS, gue_port, inside, hash)
    if not backend.family:
        put_ipv4(outer, length, traffic_class, keeps_whole(packet), protocol, &source, &backend.address)
        return outer
    put_ipv6(outer, length - IPV6_HEADER, traffic_class, <uint32_t>hash & 0xFFFFF, protocol, &source,
             &backend.address)
    if gue:
        # IPv6 has no checksum of its own, so one is required here (RFC 8200, section 8.1).
        length = packet.total + GUE_HEADERS
        put_checksum(udp + 6, sum_pseudo(&source, &backend.address, PROTO_UDP, length) + sum_bytes(udp, length))
        if udp[6] == 0 and udp[7] == 0:
            udp[6] = udp[7] = 0xFF
    return outer
