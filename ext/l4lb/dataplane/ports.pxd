"""The masquerade ports of one worker: which of them have a flow, and whose they are.

A port of the pool is known by its number, `index of the address * ports + port - first port`. Two arrays lead from a
place of the flow table to its number and back, so that flows without one stay as small as they are, and a bit map finds a
free one. All are mapped, but cost nothing before they are used; a worker without ports has none.

Memory, at most: 4 bytes a place of the flow table; 4 bytes and a bit a number, 64 * 65536 of them.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef enum:
    MAX_POOL = 64       # addresses
    NO_NUMBER = -1


cdef struct Ports:
    uint32_t first
    uint32_t size       # ports of every address, 0 for a worker that has none
    uint32_t* numbers   # by place, one more than the number; 0: none
    uint32_t* places    # by number, one more than the place; 0: free
    uint64_t* taken     # bits, by number
    uint32_t used[MAX_POOL]     # ports that are taken, by address
    size_t mapped


cdef int ports_open(Ports* ports, uint32_t first, uint32_t size, uint64_t places) except -1
cdef void ports_close(Ports* ports) noexcept nogil

# A free number among those of `count` addresses from `address` on (section 11), or NO_NUMBER.
cdef int64_t ports_find(const Ports* ports, uint32_t address, uint32_t count, uint64_t hash) noexcept nogil
cdef void ports_take(Ports* ports, uint32_t number, uint32_t place) noexcept nogil
cdef void ports_free(Ports* ports, uint32_t place) noexcept nogil


cdef inline int64_t ports_number(const Ports* ports, uint32_t place) noexcept nogil:
    """The number that the flow in this place has, or NO_NUMBER."""
    if ports.size == 0:
        return NO_NUMBER
    return <int64_t>ports.numbers[place] - 1


cdef inline int64_t ports_number_of(const Ports* ports, uint32_t address, uint32_t port) noexcept nogil:
    """The number of a port of the pool's address with this index, or NO_NUMBER where it is not the worker's."""
    if port < ports.first or port - ports.first >= ports.size or address >= MAX_POOL:
        return NO_NUMBER
    return <int64_t>address * ports.size + (port - ports.first)


cdef inline int64_t ports_place(const Ports* ports, uint32_t number) noexcept nogil:
    """The place of the flow that has this number, or -1."""
    return <int64_t>ports.places[number] - 1
