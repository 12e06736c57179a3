"""The data of the packet path, without Python objects: what one worker has, and what is known of one packet."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from l4lb.dataplane.affinity cimport Affinities
from l4lb.dataplane.flowtable cimport FlowTable
from l4lb.dataplane.hashing cimport Key
from l4lb.dataplane.nativetable cimport Rules, pthread_mutex_t
from l4lb.dataplane.packet cimport Packet
from l4lb.dataplane.reasons cimport REASON_COUNT


cdef struct SlotStats:
    uint64_t scheduled
    uint64_t packets_in
    uint64_t bytes_in
    uint64_t packets_out
    uint64_t bytes_out
    uint64_t begun
    uint64_t failed


cdef struct Core:
    pthread_mutex_t mutex
    FlowTable table
    Key key
    Rules* rules
    Affinities* affinities      # shared by all workers
    SlotStats* slot_stats
    uint64_t reason_counts[REASON_COUNT]
    # Flows that were remembered from their first packet, in one second.
    uint64_t pace_second
    uint64_t pace_begun
    # ICMP errors that were sent because no backend takes new flows, in one second.
    uint64_t rejected_second
    uint64_t rejected


cdef enum Owner:        # whose packet it is
    OWNER_NONE
    OWNER_SERVICE
    OWNER_POOL          # a masqueraded flow's, if that is still so when it is decided
    OWNER_ENDPOINT


cdef struct Candidate:
    # A packet whose headers are read and whose owner is known, before any flow was looked up.
    Packet packet
    uint64_t hash           # of the flow (of the first possible one, for an endpoint)
    int reason              # -1 while undecided
    Owner owner
    int service             # OWNER_SERVICE
    uint32_t segment        # OWNER_ENDPOINT
    uint32_t number         # OWNER_POOL


cdef enum Carry:        # how a decision is carried out
    CARRY_VERDICT       # by the verdict alone
    CARRY_MARK          # by the kernel, which the mark tells how
    CARRY_REWRITE       # the packet was rewritten where it stands
    CARRY_SENT          # the packet is dropped and `out` sent


cdef struct Outcome:
    int reason
    int slot                # -1 where there is none
    uint32_t mark
    Carry carry
    bint splittable         # what is sent may be cut into fragments, where it does not fit
    uint8_t* out
    uint32_t out_length
