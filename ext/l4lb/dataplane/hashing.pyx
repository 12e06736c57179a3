"""Keyed hashing and Maglev (docs/design/decision.md, section 7)."""
from cpython cimport array
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

import array


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
    cdef int* table = place_backends(permutations, weights, size)
    cdef long i
    if table == NULL:
        return []
    try:
        return [table[i] for i in range(size)]
    finally:
        free(table)


def maglev_lookup(permutations, weights, slots, long size):
    cdef array.array numbers = array.array("H", slots)
    cdef array.array found = array.array("H")
    cdef long i
    if len(numbers) != len(permutations):
        raise ValueError(f"{len(permutations)} permutations but {len(numbers)} slots")
    cdef int* table = place_backends(permutations, weights, size)
    if table == NULL:
        return b""
    try:
        array.resize(found, size)
        for i in range(size):
            found.data.as_ushorts[i] = numbers.data.as_ushorts[table[i]]
        return found.tobytes()
    finally:
        free(table)


cdef int* place_backends(permutations, weights, long size) except? NULL:
    """A backend's index for each place, to be freed; NULL, without an error, where no backend has weight."""
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
        return NULL
    if heaviest > 0xFFFFFFFF:
        raise ValueError(f"weight {heaviest} is too large")

    # One allocation for the cursors of all backends, one for the table, one for the bits of taken places.
    cdef uint64_t* weight_of = <uint64_t*>calloc(4 * count, sizeof(uint64_t))
    cdef int* table = <int*>calloc(size, sizeof(int))
    cdef uint64_t* taken = <uint64_t*>calloc(size // 64 + 1, sizeof(uint64_t))
    cdef bint filled = False
    cdef uint64_t most = heaviest
    cdef long i
    try:
        if weight_of == NULL or table == NULL or taken == NULL:
            raise MemoryError
        for i in range(count):
            weight_of[i] = weights[i]
            weight_of[count + i], weight_of[2 * count + i] = permutations[i]
        with nogil:
            filled = fill(table, taken, size, count, weight_of, weight_of + count, weight_of + 2 * count,
                          weight_of + 3 * count, most)
        if not filled:
            raise ValueError(f"a skip shares a factor with {size}; the size must be a prime")
        return table
    finally:
        free(weight_of)
        free(taken)
        if not filled:
            free(table)


cdef bint fill(int* table, uint64_t* taken, long size, long count, const uint64_t* weight, uint64_t* place,
               const uint64_t* skip, uint64_t* credit, uint64_t heaviest) noexcept nogil:
    """Each backend in its turn takes its next free place. It has a turn whenever its weight, added up round by round,
    passes the heaviest once more. Which places are taken stands in bits of their own: these stay in the nearest
    cache, where a hundred tables after one another take a third of the time."""
    cdef long filled = 0
    cdef uint64_t where
    cdef long i, tries
    while True:
        for i in range(count):
            credit[i] += weight[i]
            if credit[i] < heaviest:
                continue
            credit[i] -= heaviest
            where = place[i]
            tries = 0
            while taken[where >> 6] >> (where & 63) & 1:
                where += skip[i]
                if where >= <uint64_t>size:
                    where -= size
                tries += 1
                if tries > size:
                    return False
            taken[where >> 6] |= <uint64_t>1 << (where & 63)
            table[where] = <int>i
            filled += 1
            if filled == size:
                return True
            where += skip[i]
            place[i] = where - size if where >= <uint64_t>size else where
