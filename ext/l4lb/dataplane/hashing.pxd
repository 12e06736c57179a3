"""SipHash-2-4 over whole 64-bit words, inline for the packet path.

The words are the message in memory order (little-endian machines: as the bytes stand). The callers'
messages are multiples of eight bytes, so the last word holds the length alone.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef struct Key:
    uint64_t k0
    uint64_t k1


cdef inline uint64_t rotate(uint64_t x, int bits) noexcept nogil:
    return (x << bits) | (x >> (64 - bits))


cdef inline void sip_round(uint64_t* v) noexcept nogil:
    v[0] += v[1]
    v[2] += v[3]
    v[1] = rotate(v[1], 13) ^ v[0]
    v[3] = rotate(v[3], 16) ^ v[2]
    v[0] = rotate(v[0], 32)
    v[2] += v[1]
    v[0] += v[3]
    v[1] = rotate(v[1], 17) ^ v[2]
    v[3] = rotate(v[3], 21) ^ v[0]
    v[2] = rotate(v[2], 32)


cdef inline void sip_start(uint64_t* v, const Key* key) noexcept nogil:
    v[0] = key.k0 ^ <uint64_t>0x736F6D6570736575
    v[1] = key.k1 ^ <uint64_t>0x646F72616E646F6D
    v[2] = key.k0 ^ <uint64_t>0x6C7967656E657261
    v[3] = key.k1 ^ <uint64_t>0x7465646279746573


cdef inline void sip_word(uint64_t* v, uint64_t word) noexcept nogil:
    v[3] ^= word
    sip_round(v)
    sip_round(v)
    v[0] ^= word


cdef inline uint64_t sip_finish(uint64_t* v, uint64_t last) noexcept nogil:
    sip_word(v, last)
    v[2] ^= 0xFF
    sip_round(v)
    sip_round(v)
    sip_round(v)
    sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


cdef inline uint64_t sip_words(const Key* key, const uint64_t* words, int count) noexcept nogil:
    """SipHash-2-4 of `count` words."""
    cdef uint64_t v[4]
    cdef int i
    sip_start(v, key)
    for i in range(count):
        sip_word(v, words[i])
    return sip_finish(v, <uint64_t>(8 * count) << 56)


cdef inline uint64_t sip_ipv4(const Key* key, uint32_t address) noexcept nogil:
    """SipHash-2-4 of the four bytes of an IPv4 address: they share the last word with the length."""
    cdef uint64_t v[4]
    sip_start(v, key)
    return sip_finish(v, <uint64_t>4 << 56 | address)


cdef inline uint32_t scale(uint32_t x, uint32_t n) noexcept nogil:
    """Maps a uniform 32-bit number onto 0 .. n-1 without a division."""
    return <uint32_t>((<uint64_t>x * n) >> 32)


cdef Key load_key(bytes key) except *

# SipHash-2-4 of any message.
cdef uint64_t sip_bytes(const Key* key, const uint8_t* data, size_t length) noexcept nogil
