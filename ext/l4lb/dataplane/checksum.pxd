"""The Internet checksum in pieces (RFC 1071, RFC 1624).

Sums are over 16-bit words in memory order: one's complement addition does not care about byte order (RFC 1071,
section 2), so nothing is swapped.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from l4lb.dataplane.packet cimport Addr


cdef inline uint16_t fold(uint64_t total) noexcept nogil:
    total = <uint64_t><uint32_t>total + (total >> 32)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return <uint16_t>total


cdef inline uint64_t sum_addr(const Addr* addr) noexcept nogil:
    """The 16-bit words of an address; four 32-bit pieces cannot overflow 64 bits."""
    return <uint64_t><uint32_t>addr.hi + (addr.hi >> 32) + <uint32_t>addr.lo + (addr.lo >> 32)


cdef inline uint64_t sum_bytes(const uint8_t* data, uint32_t length) noexcept nogil:
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


cdef inline uint64_t sum_pseudo(const Addr* source, const Addr* destination, uint8_t protocol,
                                uint32_t length) noexcept nogil:
    """The pseudo header (RFC 9293, section 3.1; RFC 8200, section 8.1)."""
    cdef uint8_t tail[8]
    tail[0] = <uint8_t>(length >> 24)
    tail[1] = <uint8_t>(length >> 16)
    tail[2] = <uint8_t>(length >> 8)
    tail[3] = <uint8_t>length
    tail[4] = tail[5] = tail[6] = 0
    tail[7] = protocol
    return sum_addr(source) + sum_addr(destination) + sum_bytes(tail, 8)


cdef inline void update(uint8_t* field, uint64_t old, uint64_t new) noexcept nogil:
    """RFC 1624, equation 3: HC' = ~(~HC + ~m + m')."""
    cdef uint16_t checksum
    memcpy(&checksum, field, 2)
    checksum = ~fold(<uint64_t><uint16_t>~checksum + <uint16_t>~fold(old) + new)
    memcpy(field, &checksum, 2)


cdef inline void put_checksum(uint8_t* field, uint64_t total) noexcept nogil:
    """Writes the checksum of what sums up to `total`, the field itself counted as 0."""
    cdef uint16_t checksum = ~fold(total)
    memcpy(field, &checksum, 2)
