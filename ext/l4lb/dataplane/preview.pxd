"""Looking without touching: which flow a packet has, and what `decide` would answer."""
from libc.stdint cimport uint64_t

from l4lb.dataplane.core cimport Candidate, Core, Outcome
from l4lb.dataplane.flowtable cimport Flow

# The flow, expired or not, of a packet to a service, or NULL.
cdef const Flow* peek(Core* core, const Candidate* candidate) noexcept nogil
# What `decide` would answer for a packet to a service, with nothing changed: a reason and a slot only.
cdef void preview(Core* core, Candidate* candidate, uint64_t now_ms, Outcome* outcome) noexcept nogil
