"""Packets inside others, to a backend that answers the client itself.

IPIP is RFC 2003 and RFC 2473. GUE is draft-ietf-intarea-gue, version 0 without options: four bytes that name
the protocol inside, behind UDP, whose source port lets routers and network cards spread flows.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from l4lb.dataplane.nativetable cimport BackendView
from l4lb.dataplane.packet cimport Packet


# Bytes that a tunnel adds to a packet.
cdef uint32_t tunnel_overhead(const BackendView* backend, bint gue) noexcept nogil

# Builds the outer headers in front of the packet, which loses a hop; returns where what is sent begins. It is the
# packet's `total` and the overhead long.
cdef uint8_t* tunnel_wrap(Packet* packet, const BackendView* backend, bint gue, uint16_t gue_port,
                          uint64_t hash) noexcept nogil
