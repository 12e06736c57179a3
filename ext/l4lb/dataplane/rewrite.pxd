"""Writes addresses, ports and hops into a packet, in place, and mends its checksums."""
from libc.stdint cimport uint16_t

from l4lb.dataplane.packet cimport Addr, Packet

# Write an address, and a port unless it is 0.
cdef void rewrite_destination(Packet* packet, const Addr* addr, uint16_t port_be) noexcept nogil
cdef void rewrite_source(Packet* packet, const Addr* addr, uint16_t port_be) noexcept nogil

# For what is sent: the transport checksum in full where the kernel left it unfinished, and one hop less to live.
cdef void finish_checksum(Packet* packet) noexcept nogil
cdef void spend_hop(Packet* packet) noexcept nogil
