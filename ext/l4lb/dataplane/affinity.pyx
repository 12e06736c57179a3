"""Affinity of clients (docs/design/decision.md, section 12)."""
from cpython.mem cimport PyMem_RawFree
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from l4lb.dataplane.nativetable cimport (
    BackendView,
    ServiceView,
    pthread_mutex_destroy,
    pthread_mutex_init,
    zeros,
)
from l4lb.dataplane.packet cimport FAMILY_IPV6, Addr, same_addr
from l4lb.dataplane.sources cimport group_number

cdef enum:
    GROUP = 8
    GROUPS = AFFINITY_PLACES // GROUP


cdef Affinities* affinities_open() except NULL:
    cdef Affinities* affinities = <Affinities*>zeros(1, sizeof(Affinities))
    try:
        affinities.places = <Affinity*>zeros(AFFINITY_PLACES, sizeof(Affinity))
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


cdef Affinity* group_of(Affinities* affinities, uint32_t number, const Addr* network,
                        uint8_t family) noexcept nogil:
    return affinities.places + GROUP * group_number(&affinities.key, number, network, family, GROUPS)


cdef Client client_of(Affinities* affinities, const ServiceView* service, const Packet* packet) noexcept nogil:
    cdef Client client
    client.family = packet.protocol & FAMILY_IPV6
    client.number = service.affinity_number
    client.network = packet.source
    client.network.hi &= service.affinity_masks[client.family != 0].hi
    client.network.lo &= service.affinity_masks[client.family != 0].lo
    client.group = group_of(affinities, client.number, &client.network, client.family)
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
    cdef int slot
    if place == NULL or now_ms >= place.ends_ms or place.slot >= rules.slots_end:
        return -1
    slot = slot_of(rules, service, place.slot)
    return slot if slot >= 0 and rules.backends[slot].takes_new else -1


cdef int slot_of(const Rules* rules, int service, int slot) noexcept nogil:
    """What a remembered slot is to the service: its own, or its own at the same host, or -1."""
    cdef const BackendView* backend = rules.backends + slot
    cdef const ServiceView* here = rules.services + service
    if backend.service == service:
        return slot
    if not backend.host or rules.services[backend.service].affinity_group != here.affinity_group:
        return -1
    return rules.peers[backend.host - 1 + here.affinity_member]


cdef bint affinity_follows(const Rules* rules, int service, int slot) noexcept nogil:
    return not rules.services[service].affinity_group or rules.backends[slot].host != 0


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


cdef size_t copy_affinities(const Affinities* affinities, Affinity* records, size_t first, size_t count,
                            uint64_t now_ms) noexcept nogil:
    cdef size_t place
    cdef size_t found = 0
    for place in range(first, first + count):
        if affinities.places[place].ends_ms > now_ms:
            records[found] = affinities.places[place]
            found += 1
    return found


cdef bint load_affinity(Affinities* affinities, const Affinity* record) noexcept nogil:
    cdef Client client
    cdef int i
    client.network = record.network
    client.number = record.number
    client.family = record.family
    client.group = group_of(affinities, client.number, &client.network, client.family)
    if find_in(&client) != NULL:
        return False
    for i in range(GROUP):
        if client.group[i].ends_ms == 0:
            client.group[i] = record[0]
            return True
    return False
