"""TCP resets (RFC 9293, section 3.5.2), for clients whose backend is down, or that no backend takes. They
come from whom the client talks to."""
from libc.stdint cimport uint8_t, uint32_t

from l4lb.dataplane.packet cimport Packet


# Builds the answer to a TCP packet without RST in front of it; returns its first byte and, in `length`, its size.
cdef uint8_t* build_reset(const Packet* packet, uint32_t* length) noexcept nogil
