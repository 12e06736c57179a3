"""A packet's headers, read once: what a decision needs to know and where to write.

Whoever has a packet decided keeps `HEADROOM` writable bytes in front of it: what is sent instead of it (outer headers,
ICMP errors) is built there, so that nothing is copied.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef enum:
    PROTO_TCP = 6
    PROTO_UDP = 17
    FLAG_FIN = 0x01
    FLAG_SYN = 0x02
    FLAG_RST = 0x04
    FLAG_ACK = 0x10
    HEADROOM = 64
    # Added to the protocol number where a key must tell IPv6 from IPv4.
    FAMILY_IPV6 = 0x80


cdef struct Addr:
    # Memory order. IPv4: hi is 0 and lo the four bytes; the family is told by the protocol's top bit.
    uint64_t hi
    uint64_t lo


cdef struct Packet:
    Addr source
    Addr destination
    uint8_t* data
    uint32_t have       # bytes in the capture
    uint32_t total      # bytes of the packet by its own header
    uint32_t l4         # offset of the transport header
    uint16_t sport_be
    uint16_t dport_be
    uint8_t protocol    # with FAMILY_IPV6
    uint8_t flags       # TCP flags, 0 for UDP
    bint checksum_ready
    bint gso


cdef inline uint16_t be16(const uint8_t* p) noexcept nogil:
    return <uint16_t>((p[0] << 8) | p[1])


cdef inline uint16_t swap16(uint16_t x) noexcept nogil:
    return <uint16_t>((x << 8) | (x >> 8))


cdef inline bint same_addr(const Addr* a, const Addr* b) noexcept nogil:
    return a.hi == b.hi and a.lo == b.lo


cdef inline void put16(uint8_t* p, uint32_t x) noexcept nogil:
    p[0] = <uint8_t>(x >> 8)
    p[1] = <uint8_t>x


cdef inline uint8_t ttl_of(const Packet* packet) noexcept nogil:
    """TTL or hop limit."""
    return packet.data[7] if packet.protocol & FAMILY_IPV6 else packet.data[8]


cdef inline bint keeps_whole(const Packet* packet) noexcept nogil:
    """Whether routers may not fragment it: IPv6, or IPv4 with DF."""
    return packet.protocol & FAMILY_IPV6 or packet.data[6] & 0x40


cdef Addr load_addr(bytes raw) except *
cdef bytes dump_addr(const Addr* addr, uint8_t protocol)

# Fills `packet` from data, have and length; returns a Reason, or -1 where the headers are sound.
cdef int parse(Packet* packet, uint8_t* data, uint32_t have, uint32_t length,
               bint checksum_ready, bint gso) noexcept nogil
