"""Whose packet is it? (docs/design/decision.md, sections 1 and 2)"""
from libc.stdint cimport int64_t, uint8_t, uint32_t

from l4lb.dataplane.core cimport OWNER_ENDPOINT, OWNER_NONE, OWNER_POOL, OWNER_SERVICE
from l4lb.dataplane.flowtable cimport (
    Flow,
    table_prefetch_flow,
    table_prefetch_number,
    table_prefetch_place,
    table_prefetch_tags,
)
from l4lb.dataplane.nativetable cimport POOL_PROTOCOL, find_value
from l4lb.dataplane.flowrules cimport hash_flow, key_from_backend, key_to_service
from l4lb.dataplane.packet cimport FAMILY_IPV6, parse, swap16, ttl_of
from l4lb.dataplane.ports cimport NO_NUMBER, ports_number_of
from l4lb.dataplane.reasons cimport REASON_NOT_BALANCED, REASON_TRUNCATED, REASON_TTL_EXPIRED


cdef void classify(Core* core, Candidate* candidate, uint8_t* data, uint32_t have, uint32_t length,
                   bint checksum_ready, bint gso, bint rewrite) noexcept nogil:
    cdef Packet* packet = &candidate.packet
    cdef Flow key
    candidate.owner = OWNER_NONE
    candidate.reason = parse(packet, data, have, length, checksum_ready, gso)
    if candidate.reason >= 0:
        return
    if rewrite and packet.total > have:
        candidate.reason = REASON_TRUNCATED
        return
    candidate.service = find_value(&core.rules.vips, &packet.destination, packet.protocol,
                                   swap16(packet.dport_be))
    if candidate.service >= 0:
        candidate.owner = OWNER_SERVICE
        key_to_service(&key, packet)
        candidate.hash = hash_flow(&core.key, &key)
        table_prefetch_tags(&core.table, candidate.hash)
        if core.rules.services[candidate.service].sent:
            candidate.reason = refuse_to_send(packet)
    elif core.table.ports.size == 0 or not classify_pool(core, candidate):
        classify_endpoint(core, candidate)


cdef bint classify_pool(Core* core, Candidate* candidate) noexcept nogil:
    """Whether the packet's destination is a port of the masquerade pool that is the worker's."""
    cdef const Packet* packet = &candidate.packet
    cdef int64_t number
    cdef int index = find_value(&core.rules.pool, &packet.destination,
                                <uint8_t>(POOL_PROTOCOL | packet.protocol & FAMILY_IPV6), 0)
    if index < 0:
        return False
    number = ports_number_of(&core.table.ports, index, swap16(packet.dport_be))
    if number == NO_NUMBER:
        return False
    candidate.owner = OWNER_POOL
    candidate.number = <uint32_t>number
    table_prefetch_number(&core.table, candidate.number)
    return True


cdef void classify_endpoint(Core* core, Candidate* candidate) noexcept nogil:
    cdef const Packet* packet = &candidate.packet
    cdef Flow key
    cdef int segment = find_value(&core.rules.endpoints, &packet.source, packet.protocol,
                                  swap16(packet.sport_be))
    if segment < 0:
        candidate.owner = OWNER_NONE
        candidate.reason = REASON_NOT_BALANCED
        return
    candidate.owner = OWNER_ENDPOINT
    candidate.segment = segment
    key_from_backend(&key, packet, core.rules.frontends + core.rules.segments[segment].first_frontend)
    candidate.hash = hash_flow(&core.key, &key)
    table_prefetch_tags(&core.table, candidate.hash)


cdef int refuse_to_send(const Packet* packet) noexcept nogil:
    if packet.total > packet.have:
        return REASON_TRUNCATED
    return REASON_TTL_EXPIRED if ttl_of(packet) <= 1 else -1


cdef void warm(Core* core, const Candidate* candidate) noexcept nogil:
    if candidate.reason >= 0:
        return
    if candidate.owner == OWNER_POOL:
        table_prefetch_place(&core.table, candidate.number)
    else:
        table_prefetch_flow(&core.table, candidate.hash)
