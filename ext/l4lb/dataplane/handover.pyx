"""Records of flows (see handover.pxd)."""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from l4lb.dataplane.flowrules cimport hash_flow
from l4lb.dataplane.flowtable cimport table_insert, table_number, table_peek, table_place
from l4lb.dataplane.packet cimport FAMILY_IPV6, PROTO_TCP, PROTO_UDP
from l4lb.dataplane.ports cimport NO_NUMBER, ports_number_of, ports_place, ports_take
from l4lb.dataplane.reasons cimport STATE_CLOSE_WAIT, STATE_SYN_RECV, STATE_UDP
from l4lb.dataplane.sources cimport sources_hold


cdef size_t copy_records(const Core* core, Record* records, size_t first, size_t count) noexcept nogil:
    cdef size_t place
    cdef size_t found = 0
    cdef int64_t number
    for place in range(first, first + count):
        if not core.table.tags[place]:
            continue
        records[found].flow = core.table.flows[place]
        records[found].address = 0
        records[found].port = 0
        records[found].unused = 0
        number = table_number(&core.table, core.table.flows + place)
        if number != NO_NUMBER:
            records[found].address = <uint16_t>(number // core.table.ports.size)
            records[found].port = <uint16_t>(core.table.ports.first + number % core.table.ports.size)
        found += 1
    return found


cdef bint is_sound(const Flow* flow) noexcept nogil:
    cdef int protocol = flow.protocol & ~FAMILY_IPV6
    if protocol == PROTO_UDP:
        return flow.state == STATE_UDP
    return protocol == PROTO_TCP and STATE_SYN_RECV <= flow.state <= STATE_CLOSE_WAIT


cdef bint load_record(Core* core, const Record* record) noexcept nogil:
    cdef const Flow* flow = &record.flow
    cdef uint64_t hash = hash_flow(&core.key, flow)
    cdef int64_t number = NO_NUMBER
    cdef Flow* place
    if not is_sound(flow) or table_peek(&core.table, hash, flow) != NULL:
        return False
    if record.port:
        number = ports_number_of(&core.table.ports, record.address, record.port)
        if number == NO_NUMBER or ports_place(&core.table.ports, <uint32_t>number) >= 0:
            return False
    place = table_place(&core.table, hash, 0)
    if place == NULL:
        return False
    if core.table.sources.limited[flow.slot]:
        sources_hold(core.table.sources, flow.slot, &flow.client, flow.protocol & FAMILY_IPV6)
    table_insert(&core.table, place, hash, flow)
    if number != NO_NUMBER:
        ports_take(&core.table.ports, <uint32_t>number, <uint32_t>(place - core.table.flows))
    return True
