"""Whose packet is it? The first two steps of a batch, each over all of its packets: `classify` reads headers and asks
for the tags of the flow, `warm` for the flow itself, so that its memory travels while the next packet is read.
"""
from libc.stdint cimport uint8_t, uint32_t

from l4lb.dataplane.core cimport Candidate, Core
from l4lb.dataplane.packet cimport Packet

# `data` has HEADROOM writable bytes in front of it. `rewrite`: the packet is rewritten where it stands, if the kernel
# need not carry the decision out.
cdef void classify(Core* core, Candidate* candidate, uint8_t* data, uint32_t have, uint32_t length,
                   bint checksum_ready, bint gso, bint rewrite) noexcept nogil
cdef void warm(Core* core, const Candidate* candidate) noexcept nogil

# From an endpoint or nobody's: for a packet to a pool address that turns out not to be a masqueraded flow's.
cdef void classify_endpoint(Core* core, Candidate* candidate) noexcept nogil
# Why a packet cannot be sent on, or -1: it is cut, or its time to live ends.
cdef int refuse_to_send(const Packet* packet) noexcept nogil
