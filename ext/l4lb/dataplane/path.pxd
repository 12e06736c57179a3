"""The packet path of one worker, without the GIL. A batch is taken in three steps, each over all of its packets:
`classify`, `warm` (both in `classify`), `decide`; for a single packet the second is left out.

Locking: none here; the owner (`Balancer`) holds `Core.mutex` for a batch, and rules must have been published.
"""
from libc.stdint cimport uint32_t, uint64_t

from l4lb.dataplane.core cimport Candidate, Core, Outcome

# `first_port` and `ports` are the worker's on every address of the masquerade pool.
cdef int core_open(Core* core, uint64_t capacity, uint32_t first_port, uint32_t ports) except -1
cdef void core_close(Core* core) noexcept nogil

cdef void decide(Core* core, Candidate* candidate, bint rewrite, uint64_t now_ms, Outcome* outcome) noexcept nogil
