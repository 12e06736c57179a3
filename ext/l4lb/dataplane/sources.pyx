"""Limits of a source (docs/design/decision.md, section 10)."""
from cpython.mem cimport PyMem_RawFree
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from l4lb.dataplane.hashing cimport Key, sip_ipv4, sip_words
from l4lb.dataplane.nativetable cimport (
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    zeros,
)
from l4lb.dataplane.packet cimport FAMILY_IPV6, same_addr

cdef enum:
    GROUPS = 8192
    GROUP = 8


cdef Sources* sources_open() except NULL:
    cdef Sources* sources = <Sources*>zeros(1, sizeof(Sources))
    try:
        sources.places = <Source*>zeros(GROUPS * GROUP, sizeof(Source))
    except MemoryError:
        PyMem_RawFree(sources)
        raise
    pthread_mutex_init(&sources.mutex, NULL)
    return sources


cdef void sources_close(Sources* sources) noexcept nogil:
    if sources == NULL:
        return
    pthread_mutex_destroy(&sources.mutex)
    PyMem_RawFree(sources.places)
    PyMem_RawFree(sources)


cdef uint64_t source_hash(const Key* key, const Addr* address, uint8_t family) noexcept nogil:
    if family & FAMILY_IPV6:
        return sip_words(key, <const uint64_t*>address, 2)
    return sip_ipv4(key, <uint32_t>address.lo)


cdef size_t group_number(const Key* key, uint32_t number, const Addr* address, uint8_t family,
                         size_t groups) noexcept nogil:
    cdef uint64_t hash = source_hash(key, address, family) ^ number * <uint64_t>0x9E3779B97F4A7C15
    return <size_t>(hash >> 32) & (groups - 1)


cdef Source* group_of(Sources* sources, uint32_t number, const Addr* address, uint8_t family) noexcept nogil:
    return sources.places + GROUP * group_number(&sources.key, number, address, family, GROUPS)


cdef Source* find_in(Source* group, uint32_t number, const Addr* address, uint8_t family) noexcept nogil:
    cdef Source* place
    cdef int i
    for i in range(GROUP):
        place = group + i
        if (place.second and place.number == number and place.family == family
                and same_addr(&place.address, address)):
            return place
    return NULL


cdef Source* free_in(Source* group, uint32_t second) noexcept nogil:
    cdef int i
    for i in range(GROUP):
        if group[i].second == 0 or (group[i].flows == 0 and group[i].second != second):
            return group + i
    return NULL


cdef void occupy(Source* place, uint32_t number, const Addr* address, uint8_t family,
                 uint32_t second) noexcept nogil:
    place.address = address[0]
    place.number = number
    place.family = family
    place.second = second
    place.flows = 0
    place.begun = 0


cdef bint at_limit(const ServiceView* service, uint32_t begun, uint32_t flows) noexcept nogil:
    return (
        0 < service.source_new_flows <= begun
        or 0 < service.source_flows <= flows
    )


cdef bint sources_begin(Sources* sources, const ServiceView* service, const Addr* address, uint8_t family,
                        uint64_t now_ms) noexcept nogil:
    cdef uint32_t second = <uint32_t>(now_ms // 1000) + 1
    cdef Source* group = group_of(sources, service.number, address, family)
    cdef Source* place
    cdef bint allowed = True
    pthread_mutex_lock(&sources.mutex)
    place = find_in(group, service.number, address, family)
    if place == NULL:
        place = free_in(group, second)
        if place == NULL:
            sources.untracked += 1
        else:
            occupy(place, service.number, address, family, second)
    if place != NULL:
        if place.second != second:
            place.second = second
            place.begun = 0
        allowed = not at_limit(service, place.begun, place.flows)
        if allowed:
            place.begun += 1
    pthread_mutex_unlock(&sources.mutex)
    return allowed


cdef bint sources_would_begin(Sources* sources, const ServiceView* service, const Addr* address, uint8_t family,
                              uint64_t now_ms, uint32_t removed) noexcept nogil:
    cdef uint32_t second = <uint32_t>(now_ms // 1000) + 1
    cdef Source* group = group_of(sources, service.number, address, family)
    cdef const Source* place
    cdef bint allowed = True
    pthread_mutex_lock(&sources.mutex)
    place = find_in(group, service.number, address, family)
    if place != NULL:
        allowed = not at_limit(service, place.begun if place.second == second else 0,
                               place.flows - min(place.flows, removed))
    pthread_mutex_unlock(&sources.mutex)
    return allowed


cdef void sources_count(Sources* sources, uint16_t slot, const Addr* address, uint8_t family,
                        int change) noexcept nogil:
    cdef uint32_t number = sources.numbers[slot]
    cdef Source* group = group_of(sources, number, address, family)
    cdef Source* place
    pthread_mutex_lock(&sources.mutex)
    place = find_in(group, number, address, family)
    if place != NULL:
        place.flows = <uint32_t>max(<int64_t>place.flows + change, 0)
    pthread_mutex_unlock(&sources.mutex)


cdef void sources_hold(Sources* sources, uint16_t slot, const Addr* address, uint8_t family) noexcept nogil:
    cdef uint32_t number = sources.numbers[slot]
    cdef Source* group = group_of(sources, number, address, family)
    cdef Source* place
    pthread_mutex_lock(&sources.mutex)
    if find_in(group, number, address, family) == NULL:
        # Its second is that of the beginning of time, so that the place is free once its flows are gone.
        place = free_in(group, 1)
        if place != NULL:
            occupy(place, number, address, family, 1)
    pthread_mutex_unlock(&sources.mutex)
