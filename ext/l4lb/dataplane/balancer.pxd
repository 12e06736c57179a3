"""The decision core: one `Balancer` a worker, one immutable `NativeTable` for all of them.

Sharing. A worker locks its balancer for a batch of packets; the control plane locks it to publish a
table, to take a snapshot or to expire flows. Both hold it for microseconds. What several workers write is
little and met only by new flows and changes of state: the flow and connection counts of the slots (atomic, for
least-connections must see them all), and whose turn it is in a service (a mutex of the table, so that
round-robin goes round once, not once a worker).
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from l4lb.dataplane.flowtable cimport Flow, FlowTable
from l4lb.dataplane.hashing cimport Key
from l4lb.dataplane.nativetable cimport FrontendView, NativeTable, pthread_mutex_t
from l4lb.dataplane.packet cimport Packet
from l4lb.dataplane.reasons cimport REASON_COUNT

cdef struct SlotStats:
    uint64_t scheduled
    uint64_t packets_in
    uint64_t bytes_in
    uint64_t packets_out
    uint64_t bytes_out


cdef struct Candidate:
    # A packet whose headers are read and whose owner is known, before any flow was looked up.
    Packet packet
    uint64_t hash           # of the flow (of the first possible one, for an answer)
    int reason              # -1 while undecided
    int service             # -1 for an answer
    uint32_t segment


cdef struct Outcome:
    int reason
    int slot                # -1 where there is none
    uint32_t mark


cdef class SharedCounters:
    cdef int* slot_flows
    cdef int* slot_active


cdef class Balancer:
    cdef pthread_mutex_t mutex
    cdef FlowTable table
    cdef Key key
    cdef readonly SharedCounters shared
    cdef NativeTable rules
    cdef SlotStats* slot_stats
    cdef uint64_t reason_counts[REASON_COUNT]

    cdef void lock(self) noexcept nogil
    cdef void unlock(self) noexcept nogil
    # The lock must be held and a table published. A batch of packets is taken in three steps, each
    # over all of them, so that the memory of one flow travels while the next packet is read:
    # classify, warm, decide. For a single packet `warm` is left out.
    cdef void classify(self, Candidate* candidate, uint8_t* data, uint32_t have, uint32_t length,
                       bint checksum_ready, bint gso, bint rewrite) noexcept nogil
    cdef void warm(self, const Candidate* candidate) noexcept nogil
    cdef void decide_candidate(self, Candidate* candidate, bint rewrite, uint64_t now_ms,
                               Outcome* outcome) noexcept nogil

    cdef void preview_candidate(self, Candidate* candidate, uint64_t now_ms, Outcome* outcome) noexcept nogil
    cdef void count_replaced(self, uint64_t hash, const Flow* flow, uint32_t tick, int change) noexcept nogil
    cdef int to_service(self, Candidate* candidate, uint64_t now_ms, Outcome* outcome) noexcept nogil
    cdef int new_flow(self, Candidate* candidate, Flow* flow, uint64_t now_ms, bint again,
                      Outcome* outcome) noexcept nogil
    cdef int from_backend(self, Candidate* candidate, uint64_t now_ms, Outcome* outcome,
                          const FrontendView** frontend) noexcept nogil
    cdef int choose(self, int service, uint64_t hash, const Packet* packet) noexcept nogil
    cdef int take_turn(self, int service, uint64_t hash) noexcept nogil
    cdef uint64_t load(self, uint16_t slot) noexcept nogil
    cdef uint64_t hash_flow(self, const Flow* flow) noexcept nogil
    cdef void touch(self, Flow* flow, int seen, const Packet* packet, uint64_t now_ms) noexcept nogil
    cdef void decide_batch(self, Candidate* batch, size_t count, bint rewrite, uint64_t now_ms,
                           Outcome* last) noexcept nogil
    cdef uint32_t copy_flows(self, Flow* target, uint32_t first, uint32_t count) noexcept nogil
    cpdef uint32_t expire_groups(self, uint32_t first, uint32_t count, uint64_t now_ms)
