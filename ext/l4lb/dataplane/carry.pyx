"""Carrying it out (docs/design/decision.md, section 9)."""
from libc.stdint cimport uint16_t, uint32_t

from l4lb.dataplane.answer cimport answer_port_unreachable, answer_too_big, answer_ttl_expired
from l4lb.dataplane.core cimport CARRY_MARK, CARRY_REWRITE, CARRY_SENT, SlotStats
from l4lb.dataplane.flowtable cimport table_number
from l4lb.dataplane.nativetable cimport (
    FORWARD_DSR,
    FORWARD_GUE,
    FORWARD_IPIP,
    FORWARD_MASQUERADE,
    FORWARD_NAT,
    BackendView,
    ServiceView,
    VipView,
)
from l4lb.dataplane.packet cimport (
    FAMILY_IPV6,
    FLAG_FIN,
    FLAG_RST,
    FLAG_SYN,
    Addr,
    keeps_whole,
    same_addr,
    swap16,
)
from l4lb.dataplane.ports cimport NO_NUMBER
from l4lb.dataplane.reasons cimport (
    REASON_RESCHEDULED,
    REASON_SCHEDULED,
    REASON_TOO_BIG,
    STATE_ESTABLISHED,
    STATE_UDP,
)
from l4lb.dataplane.reset cimport build_reset
from l4lb.dataplane.rewrite cimport finish_checksum, rewrite_destination, rewrite_source, spend_hop
from l4lb.dataplane.tunnel cimport tunnel_overhead, tunnel_wrap

from l4lb.dataplane.table import LEARN_AFTER as TABLE_LEARN_AFTER, MARK_DECIDED, MARK_LEARN, MARK_REPLY, MARK_VIP_SHIFT

cdef enum:
    FORWARD_MARK = 0x40000000
    REPLY_MARK = 0x40080000
    LEARN_MARK = 0xC0000000
    LEARN_AFTER = 6
    VIP_SHIFT = 17

assert (FORWARD_MARK, REPLY_MARK) == (MARK_DECIDED, MARK_DECIDED | MARK_REPLY)
assert (<uint32_t>LEARN_MARK, VIP_SHIFT) == (MARK_LEARN, MARK_VIP_SHIFT)
assert LEARN_AFTER == TABLE_LEARN_AFTER


cdef void forward(Core* core, Candidate* candidate, const Flow* flow, bint rewrite, Outcome* outcome) noexcept nogil:
    cdef Packet* packet = &candidate.packet
    cdef const ServiceView* service = core.rules.services + candidate.service
    cdef const BackendView* backend = core.rules.backends + outcome.slot
    cdef SlotStats* stats
    if service.forward >= FORWARD_IPIP and is_too_big(core, candidate.service, outcome.slot, packet):
        outcome.reason = REASON_TOO_BIG
        outcome.slot = -1
        outcome.carry = CARRY_SENT
        outcome.splittable = False
        outcome.out = answer_too_big(
            packet, backend.mtu - tunnel_overhead(backend, service.forward == FORWARD_GUE), &outcome.out_length
        )
        return
    stats = core.slot_stats + outcome.slot
    stats.packets_in += 1
    stats.bytes_in += packet.total
    if REASON_SCHEDULED <= outcome.reason <= REASON_RESCHEDULED:
        stats.scheduled += 1
    if service.sent:
        forward_sent(core, candidate, flow, service, backend, outcome)
        return
    outcome.mark = FORWARD_MARK | <uint32_t>(outcome.slot + 1)
    outcome.carry = CARRY_MARK
    if service.forward == FORWARD_DSR:
        outcome.mark |= vip_number(core, service, packet) << VIP_SHIFT
    if core.rules.learns and flow != NULL and is_learnt(core, packet, flow):
        outcome.mark |= <uint32_t>LEARN_MARK
    elif rewrite and service.forward == FORWARD_NAT:
        outcome.carry = CARRY_REWRITE
        rewrite_destination(packet, &backend.address, backend.port_be)


cdef bint is_too_big(const Core* core, int service, int slot, const Packet* packet) noexcept nogil:
    cdef const BackendView* backend = core.rules.backends + slot
    cdef bint gue = core.rules.services[service].forward == FORWARD_GUE
    return 0 < backend.mtu < packet.total + tunnel_overhead(backend, gue) and keeps_whole(packet)


cdef void forward_sent(Core* core, Candidate* candidate, const Flow* flow, const ServiceView* service,
                       const BackendView* backend, Outcome* outcome) noexcept nogil:
    """Into a tunnel, or masqueraded, for which there always is a flow with a port."""
    cdef Packet* packet = &candidate.packet
    cdef bint gue = service.forward == FORWARD_GUE
    cdef uint32_t number
    if service.forward == FORWARD_MASQUERADE:
        number = <uint32_t>table_number(&core.table, flow)
        send_between(packet, core.rules.pool_addresses + number // core.table.ports.size,
                     swap16(<uint16_t>(core.table.ports.first + number % core.table.ports.size)),
                     &backend.address, backend.port_be, outcome)
        return
    outcome.carry = CARRY_SENT
    outcome.splittable = not keeps_whole(packet)
    outcome.out = tunnel_wrap(packet, backend, gue, core.rules.gue_port, candidate.hash)
    outcome.out_length = packet.total + tunnel_overhead(backend, gue)


cdef void reply(Core* core, Packet* packet, const FrontendView* frontend, bint rewrite,
                Outcome* outcome) noexcept nogil:
    outcome.slot = frontend.slot
    outcome.mark = REPLY_MARK | (frontend.index + 1)
    outcome.carry = CARRY_MARK
    count_out(core, frontend.slot, packet)
    if rewrite:
        outcome.carry = CARRY_REWRITE
        rewrite_source(packet, &frontend.address, frontend.port_be)


cdef void reply_masqueraded(Core* core, Packet* packet, const Flow* flow, Outcome* outcome) noexcept nogil:
    outcome.slot = flow.slot
    count_out(core, flow.slot, packet)
    send_between(packet, &flow.vip, flow.vip_port_be, &flow.client, flow.client_port_be, outcome)


cdef void answer_expired(const Packet* packet, Outcome* outcome) noexcept nogil:
    outcome.carry = CARRY_SENT
    outcome.splittable = False
    outcome.out = answer_ttl_expired(packet, &outcome.out_length)


cdef void answer_unreachable(const Packet* packet, Outcome* outcome) noexcept nogil:
    outcome.carry = CARRY_SENT
    outcome.splittable = False
    outcome.out = answer_port_unreachable(packet, &outcome.out_length)


cdef void answer_reset(const Packet* packet, Outcome* outcome) noexcept nogil:
    outcome.carry = CARRY_SENT
    outcome.splittable = False
    outcome.out = build_reset(packet, &outcome.out_length)


cdef inline void count_out(Core* core, int slot, const Packet* packet) noexcept nogil:
    core.slot_stats[slot].packets_out += 1
    core.slot_stats[slot].bytes_out += packet.total


cdef void send_between(Packet* packet, const Addr* source, uint16_t source_port_be, const Addr* destination,
                       uint16_t destination_port_be, Outcome* outcome) noexcept nogil:
    finish_checksum(packet)
    rewrite_source(packet, source, source_port_be)
    rewrite_destination(packet, destination, destination_port_be)
    spend_hop(packet)
    outcome.carry = CARRY_SENT
    outcome.splittable = not keeps_whole(packet)
    outcome.out = packet.data
    outcome.out_length = packet.total


cdef uint32_t vip_number(const Core* core, const ServiceView* service, const Packet* packet) noexcept nogil:
    """The number of the packet's destination among the service's VIPs."""
    cdef const VipView* vips = core.rules.marked_vips + service.first_vip
    cdef uint32_t i
    for i in range(service.vips):
        if vips[i].family == packet.protocol & FAMILY_IPV6 and same_addr(&vips[i].address, &packet.destination):
            return i
    return 0


cdef bint is_learnt(const Core* core, const Packet* packet, const Flow* flow) noexcept nogil:
    """Whether the kernel is to remember what is decided about a NAT or DSR flow."""
    if flow.packets < LEARN_AFTER or table_number(&core.table, flow) != NO_NUMBER:
        return False
    if flow.state == STATE_UDP:
        return True
    return flow.state == STATE_ESTABLISHED and not packet.flags & (FLAG_SYN | FLAG_FIN | FLAG_RST)
