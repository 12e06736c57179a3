"""Masquerade ports (docs/design/decision.md, section 11)."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from l4lb.dataplane.hashing cimport scale

cdef extern from *:
    """
    #include <sys/mman.h>
    static inline void *l4lb_map_lazily(size_t bytes) {
        void *p = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return p == MAP_FAILED ? 0 : p;
    }
    static inline int l4lb_first_zero(uint64_t bits) { return __builtin_ctzll(~bits); }
    """
    void* map_lazily "l4lb_map_lazily"(size_t bytes) noexcept nogil
    int first_zero "l4lb_first_zero"(uint64_t bits) noexcept nogil
    int munmap(void* p, size_t bytes) noexcept nogil


cdef int ports_open(Ports* ports, uint32_t first, uint32_t size, uint64_t places) except -1:
    cdef uint64_t count = <uint64_t>MAX_POOL * size
    cdef uint64_t words = count // 64
    cdef uint8_t* memory
    ports.first = first
    ports.size = 0
    if size == 0:
        return 0
    if first == 0 or first > 65535 or size > 65536 - first:
        raise ValueError(f"{size} ports from {first} on are out of range")
    if places > <uint64_t>1 << 31:
        raise ValueError(f"a flow table of {places} flows is too large to masquerade")
    ports.mapped = 8 * words + 4 * (count + places)
    memory = <uint8_t*>map_lazily(ports.mapped)
    if memory == NULL:
        raise MemoryError(f"no memory for {count} masquerade ports ({ports.mapped} bytes)")
    ports.taken = <uint64_t*>memory
    ports.places = <uint32_t*>(memory + 8 * words)
    ports.numbers = ports.places + count
    ports.size = size
    return 0


cdef void ports_close(Ports* ports) noexcept nogil:
    if ports.size:
        munmap(ports.taken, ports.mapped)
        ports.size = 0


cdef int64_t first_free(const Ports* ports, uint64_t begin, uint64_t end) noexcept nogil:
    """The first free number from `begin` on and below `end`, or NO_NUMBER."""
    cdef uint64_t at = begin
    cdef uint64_t taken
    while at < end:
        # Bits below `at` count as taken.
        taken = ports.taken[at // 64] | ((<uint64_t>1 << (at % 64)) - 1)
        if ~taken:
            at = at // 64 * 64 + first_zero(taken)
            return <int64_t>at if at < end else NO_NUMBER
        at = (at // 64 + 1) * 64
    return NO_NUMBER


cdef int64_t ports_find(const Ports* ports, uint32_t address, uint32_t count, uint64_t hash) noexcept nogil:
    cdef uint64_t used = 0
    cdef uint64_t total = <uint64_t>count * ports.size
    cdef uint64_t base = <uint64_t>address * ports.size
    cdef uint64_t begin
    cdef int64_t found
    cdef uint32_t i
    for i in range(address, address + count):
        used += ports.used[i]
    if used >= total:
        return NO_NUMBER
    begin = base + scale(<uint32_t>(hash >> 32), <uint32_t>total)
    found = first_free(ports, begin, base + total)
    return found if found >= 0 else first_free(ports, base, begin)


cdef void ports_take(Ports* ports, uint32_t number, uint32_t place) noexcept nogil:
    ports.taken[number // 64] |= <uint64_t>1 << (number % 64)
    ports.places[number] = place + 1
    ports.numbers[place] = number + 1
    ports.used[number // ports.size] += 1


cdef void ports_free(Ports* ports, uint32_t place) noexcept nogil:
    cdef uint32_t number
    if ports.size == 0 or ports.numbers[place] == 0:
        return
    number = ports.numbers[place] - 1
    ports.taken[number // 64] &= ~(<uint64_t>1 << (number % 64))
    ports.places[number] = 0
    ports.numbers[place] = 0
    ports.used[number // ports.size] -= 1
