"""Where the last new flow of a client went: of services with affinity, and only their new flows ask.

One table for all workers, behind a mutex. A client stands in the one group of 8 places that its hash names, so memory
and time are bounded whatever an attacker sends; one that finds its group full takes the place that would end first,
whose client is scheduled once more. That is counted.

Memory: 262144 places of 32 bytes, which cost nothing before they are used.

Locking: `mutex` is the caller's to take, before `Rules.turns` where it takes both.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from l4lb.dataplane.hashing cimport Key
from l4lb.dataplane.nativetable cimport Rules, ServiceView, pthread_mutex_t
from l4lb.dataplane.packet cimport Addr, Packet


cdef struct Affinity:
    Addr network        # the client's address, cut to the service's prefix
    uint64_t ends_ms    # 0: the place was never used
    uint32_t number     # of the service, or of its group
    uint16_t slot
    uint8_t family


cdef struct Affinities:
    pthread_mutex_t mutex
    Key key
    Affinity* places
    uint64_t crowded_out


cdef enum:
    AFFINITY_PLACES = 262144


cdef struct Client:     # who asks, and the group where it stands
    Addr network
    uint32_t number
    uint8_t family
    Affinity* group


cdef Affinities* affinities_open() except NULL
cdef void affinities_close(Affinities* affinities) noexcept nogil

# Needs no lock.
cdef Client client_of(Affinities* affinities, const ServiceView* service, const Packet* packet) noexcept nogil
# The slot of `service` that new flows of the client go to, or -1: it has none, its time is over, or it takes no new
# flows. Services of a group read one another's.
cdef int affinity_slot(const Client* client, const Rules* rules, int service, uint64_t now_ms) noexcept nogil
# The client's last new flow went to `slot`.
cdef void affinity_set(Affinities* affinities, const Client* client, uint16_t slot, uint64_t now_ms,
                       uint64_t ends_ms) noexcept nogil

# Whether new flows of a client are to follow one to `slot`: in a group only where all its services have that host.
cdef bint affinity_follows(const Rules* rules, int service, int slot) noexcept nogil

# For a program that replaces the running one: the affinities in `count` places from `first` on that end later than
# `now_ms`; returns how many there are.
cdef size_t copy_affinities(const Affinities* affinities, Affinity* records, size_t first, size_t count,
                            uint64_t now_ms) noexcept nogil
# Remembers one of another table with the same key; returns whether its group has room and does not know the client.
cdef bint load_affinity(Affinities* affinities, const Affinity* record) noexcept nogil
