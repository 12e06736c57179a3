"""Affinity of clients (docs/design/decision.md, section 12)."""
from cpython.mem cimport PyMem_RawFree
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from l4lb.dataplane.nativetable cimport BackendView, pthread_mutex_destroy, pthread_mutex_init, zeros
from l4lb.dataplane.packet cimport FAMILY_IPV6, same_addr
from l4lb.dataplane.sources cimport group_number

cdef enum:
    GROUPS = 32768
    GROUP = 8


cdef Affinities* affinities_open() except NULL:
    cdef Affinities* affinities = <Affinities*>zeros(1, sizeof(Affinities))
    try:
        affinities.places = <Affinity*>zeros(GROUPS * GROUP, sizeof(Affinity))
    except MemoryError:
        PyMem_RawFree(affinities)
        raise
    pthread_mutex_init(&affinities.mutex, NULL)
    return affinities


cdef void affinities_close(Affinities* affinities) noexcept nogil:
    if affinities == NULL:
        return
    pthread_mutex_destroy(&affinities.mutex)
    PyMem_RawFree(affinities.places)
    PyMem_RawFree(affinities)


cdef Client client_of(Affinities* affinities, const ServiceView* service, const Packet* packet) noexcept nogil:
    cdef Client client
    client.family = packet.protocol & FAMILY_IPV6
    client.number = service.number
    client.network = packet.source
    client.network.hi &= service.affinity_masks[client.family != 0].hi
    client.network.lo &= service.affinity_masks[client.family != 0].lo
    client.group = affinities.places + GROUP * group_number(
        &affinities.key, client.number, &client.network, client.family, GROUPS
    )
    return client


cdef Affinity* find_in(const Client* client) noexcept nogil:
    cdef Affinity* place
    cdef int i
    for i in range(GROUP):
        place = client.group + i
        if (place.ends_ms and place.number == client.number and place.family == client.family
                and same_addr(&place.network, &client.network)):
            return place
    return NULL


cdef int affinity_slot(const Client* client, const Rules* rules, int service, uint64_t now_ms) noexcept nogil:
    cdef const Affinity* place = find_in(client)
    cdef const BackendView* backend
    if place == NULL or now_ms >= place.ends_ms or place.slot >= rules.slots_end:
        return -1
    backend = rules.backends + place.slot
    return place.slot if backend.service == service and backend.takes_new else -1


cdef Affinity* place_in(Affinities* affinities, Affinity* group, uint64_t now_ms) noexcept nogil:
    """A place for a client that has none: the first that is free, else the one that ends first."""
    cdef Affinity* soonest = group
    cdef int i
    for i in range(GROUP):
        if now_ms >= group[i].ends_ms:
            return group + i
        if group[i].ends_ms < soonest.ends_ms:
            soonest = group + i
    affinities.crowded_out += 1
    return soonest


cdef void affinity_set(Affinities* affinities, const Client* client, uint16_t slot, uint64_t now_ms,
                       uint64_t ends_ms) noexcept nogil:
    cdef Affinity* place = find_in(client)
    if place == NULL:
        place = place_in(affinities, client.group, now_ms)
    place.network = client.network
    place.number = client.number
    place.family = client.family
    place.slot = slot
    place.ends_ms = ends_ms
