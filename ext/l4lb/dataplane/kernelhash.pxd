"""jhash of linux/jhash.h over a client's endpoint, as in nftables rules (l4lb/dataplane/kernelhash.py says why)."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from l4lb.dataplane.packet cimport FAMILY_IPV6, Packet


cdef inline uint32_t rotate32(uint32_t x, int bits) noexcept nogil:
    return (x << bits) | (x >> (32 - bits))


cdef inline void jhash_mix(uint32_t* s) noexcept nogil:
    s[0] -= s[2]
    s[0] ^= rotate32(s[2], 4)
    s[2] += s[1]
    s[1] -= s[0]
    s[1] ^= rotate32(s[0], 6)
    s[0] += s[2]
    s[2] -= s[1]
    s[2] ^= rotate32(s[1], 8)
    s[1] += s[0]
    s[0] -= s[2]
    s[0] ^= rotate32(s[2], 16)
    s[2] += s[1]
    s[1] -= s[0]
    s[1] ^= rotate32(s[0], 19)
    s[0] += s[2]
    s[2] -= s[1]
    s[2] ^= rotate32(s[1], 4)
    s[1] += s[0]


cdef inline uint32_t jhash_finish(uint32_t* s) noexcept nogil:
    s[2] ^= s[1]
    s[2] -= rotate32(s[1], 14)
    s[0] ^= s[2]
    s[0] -= rotate32(s[2], 11)
    s[1] ^= s[0]
    s[1] -= rotate32(s[0], 25)
    s[2] ^= s[1]
    s[2] -= rotate32(s[1], 16)
    s[0] ^= s[2]
    s[0] -= rotate32(s[2], 4)
    s[1] ^= s[0]
    s[1] -= rotate32(s[0], 14)
    s[2] ^= s[1]
    s[2] -= rotate32(s[1], 24)
    return s[2]


cdef inline uint32_t kernel_hash(uint32_t seed, const Packet* packet, bint by_source) noexcept nogil:
    """Of the packet's source address and port, or of the address alone."""
    cdef uint32_t words[5]
    cdef uint32_t s[3]
    cdef uint32_t count = 1
    cdef uint32_t at = 0
    cdef uint32_t left
    if packet.protocol & FAMILY_IPV6:
        words[0] = <uint32_t>packet.source.hi
        words[1] = <uint32_t>(packet.source.hi >> 32)
        words[2] = <uint32_t>packet.source.lo
        words[3] = <uint32_t>(packet.source.lo >> 32)
        count = 4
    else:
        words[0] = <uint32_t>packet.source.lo
    if not by_source:
        words[count] = packet.sport_be
        count += 1
    s[0] = s[1] = s[2] = <uint32_t>0xDEADBEEF + 4 * count + seed
    left = count
    while left > 3:
        s[0] += words[at]
        s[1] += words[at + 1]
        s[2] += words[at + 2]
        jhash_mix(s)
        at += 3
        left -= 3
    s[0] += words[at]
    if left > 1:
        s[1] += words[at + 1]
    if left > 2:
        s[2] += words[at + 2]
    return jhash_finish(s)
