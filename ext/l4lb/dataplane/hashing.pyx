"""Keyed hashing and Maglev (docs/design/decision.md, section 7)."""
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy


cdef Key load_key(bytes key) except *:
    """The two halves of a 16-byte key; ValueError for any other length."""
    cdef Key loaded
    if len(key) != 16:
        raise ValueError(f"a hash key has 16 bytes, not {len(key)}")
    memcpy(&loaded, <const char*>key, 16)
    return loaded


cdef uint64_t sip_bytes(const Key* key, const uint8_t* data, size_t length) noexcept nogil:
    cdef uint64_t v[4]
    cdef uint64_t word
    cdef uint64_t last = <uint64_t>length << 56
    cdef size_t whole = length // 8
    cdef size_t i
    sip_start(v, key)
    for i in range(whole):
        memcpy(&word, data + 8 * i, 8)
        sip_word(v, word)
    for i in range(length % 8):
        last |= <uint64_t>data[8 * whole + i] << (8 * i)
    return sip_finish(v, last)


def siphash(bytes key not None, bytes data not None):
    cdef Key k = load_key(key)
    return sip_bytes(&k, data, len(data))


def flow_hash(bytes key not None, bytes client not None, bytes vip not None,
              int client_port, int vip_port, int protocol):
    message = client + vip + client_port.to_bytes(2, "big") + vip_port.to_bytes(2, "big")
    return siphash(key, message + bytes((protocol, 0, 0, 0)))


def maglev_permutation(bytes key not None, bytes name not None, int size):
    if size < 2:
        raise ValueError(f"a lookup table has at least 2 places, not {size}")
    cdef uint64_t h = siphash(key, name)
    return int((h & 0xFFFFFFFF) % size), int((h >> 32) % (size - 1)) + 1


def maglev_table(permutations, weights, long size):
    cdef long count = len(permutations)
    if size < 2:
        raise ValueError(f"a lookup table has at least 2 places, not {size}")
    if len(weights) != count:
        raise ValueError(f"{count} permutations but {len(weights)} weights")
    if size > 0xFFFFFFFF:
        raise ValueError(f"a lookup table of {size} places is too large")
    for offset, skip in permutations:
        if not 0 <= offset < size or not 1 <= skip < size:
            raise ValueError(f"offset {offset} or skip {skip} is out of range for {size} places")
    for weight in weights:
        if weight < 0:
            raise ValueError(f"weight {weight} is negative")
    heaviest = max(weights, default=0)
    if heaviest == 0:
        return []
    if heaviest > 0xFFFFFFFF:
        raise ValueError(f"weight {heaviest} is too large")

    # One allocation for the cursors of all backends, one for the table.
    cdef uint64_t* weight_of = <uint64_t*>calloc(4 * count, sizeof(uint64_t))
    cdef int* table = <int*>calloc(size, sizeof(int))
    if weight_of == NULL or table == NULL:
        free(weight_of)
        free(table)
        raise MemoryError
    cdef uint64_t* next_place = weight_of + count
    cdef uint64_t* skip_of = weight_of + 2 * count
    cdef uint64_t* turns = weight_of + 3 * count
    cdef long i
    try:
        for i in range(count):
            weight_of[i] = weights[i]
            next_place[i], skip_of[i] = permutations[i]
        if not fill(table, size, count, weight_of, next_place, skip_of, turns, heaviest):
            raise ValueError(f"a skip shares a factor with {size}; the size must be a prime")
        return [table[i] - 1 for i in range(size)]
    finally:
        free(weight_of)
        free(table)


cdef bint fill(int* table, long size, long count, const uint64_t* weight, uint64_t* place,
               const uint64_t* skip, uint64_t* turns, uint64_t heaviest) noexcept nogil:
    """Each backend in its turn takes its next free place; 0 marks a free one."""
    cdef long filled = 0
    cdef uint64_t turn = 0
    cdef uint64_t where
    cdef long i, tries
    while True:
        turn += 1
        for i in range(count):
            if turn * weight[i] // heaviest <= turns[i]:
                continue
            turns[i] += 1
            where = place[i]
            tries = 0
            while table[where]:
                where += skip[i]
                if where >= <uint64_t>size:
                    where -= size
                tries += 1
                if tries > size:
                    return False
            table[where] = i + 1
            filled += 1
            if filled == size:
                return True
            where += skip[i]
            place[i] = where - size if where >= <uint64_t>size else where
