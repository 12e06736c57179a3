"""How a decision is carried out: by a mark, in the packet itself, or by another packet that is sent."""
from libc.stdint cimport uint16_t, uint32_t

from l4lb.dataplane.core cimport Candidate, Core, Outcome
from l4lb.dataplane.flowtable cimport Flow
from l4lb.dataplane.nativetable cimport FrontendView
from l4lb.dataplane.packet cimport Packet

# To the backend in `outcome.slot`; `flow` is NULL where none is remembered.
cdef void forward(Core* core, Candidate* candidate, const Flow* flow, bint rewrite, Outcome* outcome) noexcept nogil
# Back to the client: from a frontend, or of a masqueraded flow.
cdef void reply(Core* core, Packet* packet, const FrontendView* frontend, bint rewrite,
                Outcome* outcome) noexcept nogil
cdef void reply_masqueraded(Core* core, Packet* packet, const Flow* flow, Outcome* outcome) noexcept nogil
cdef void answer_expired(const Packet* packet, Outcome* outcome) noexcept nogil
cdef void answer_unreachable(const Packet* packet, Outcome* outcome) noexcept nogil
cdef void answer_reset(const Packet* packet, Outcome* outcome) noexcept nogil

# Whether the packet does not fit into the tunnel to the backend in `slot`, and may not be cut.
cdef bint is_too_big(const Core* core, int service, int slot, const Packet* packet) noexcept nogil
