"""ICMP errors (RFC 792, RFC 1191, RFC 4443) that tell a sender why its packet went no further.

The gateway's to send where it stands in for the kernel's forwarding, in tunnels and masquerade, and for the host that would
have the service. They come from the packet's destination, which is whom the sender talks to.
"""
from libc.stdint cimport uint8_t, uint32_t

from l4lb.dataplane.packet cimport Packet


# Build the error in front of the packet, of which it quotes the beginning as it stands; return its first byte and, in
# `length`, its size. `mtu` is what would go through.
cdef uint8_t* answer_ttl_expired(const Packet* packet, uint32_t* length) noexcept nogil
cdef uint8_t* answer_port_unreachable(const Packet* packet, uint32_t* length) noexcept nogil
cdef uint8_t* answer_too_big(const Packet* packet, uint32_t mtu, uint32_t* length) noexcept nogil
