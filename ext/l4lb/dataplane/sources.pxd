"""What every client address has of a service that limits it: flows, and flows begun in a second.

One table for all workers, behind a mutex that only the new and removed flows of such services take. A source stands in
the one group of 8 places that its hash names, so memory and time are bounded whatever an attacker sends;
a source that meets a full group goes unlimited, and is counted.

Memory: 65536 places of 40 bytes, which cost nothing before they are used.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from l4lb.dataplane.hashing cimport Key
from l4lb.dataplane.nativetable cimport SLOTS, ServiceView, pthread_mutex_t
from l4lb.dataplane.packet cimport Addr


cdef struct Source:
    Addr address
    uint32_t number     # of the service
    uint32_t flows
    uint32_t begun      # in `second`
    uint32_t second     # one more than the time's; 0: the place was never used
    uint8_t family


cdef struct Sources:
    pthread_mutex_t mutex
    Key key
    Source* places
    uint64_t untracked
    # By slot, of the last published table that has it.
    uint32_t numbers[SLOTS]
    uint8_t limited[SLOTS]      # whether the slot's service has, or had, a limit


cdef Sources* sources_open() except NULL
cdef void sources_close(Sources* sources) noexcept nogil

cdef uint64_t source_hash(const Key* key, const Addr* address, uint8_t family) noexcept nogil
# Which of `groups`, a power of two, is that of a client of a service.
cdef size_t group_number(const Key* key, uint32_t number, const Addr* address, uint8_t family,
                         size_t groups) noexcept nogil

# Whether this client may begin a flow of the service; one that may is counted.
cdef bint sources_begin(Sources* sources, const ServiceView* service, const Addr* address, uint8_t family,
                        uint64_t now_ms) noexcept nogil
# The same with nothing changed, after `removed` flows of the source were taken away.
cdef bint sources_would_begin(Sources* sources, const ServiceView* service, const Addr* address, uint8_t family,
                              uint64_t now_ms, uint32_t removed) noexcept nogil
# A flow to `slot` was inserted (1) or removed (-1). Only where `limited[slot]`.
cdef void sources_count(Sources* sources, uint16_t slot, const Addr* address, uint8_t family,
                        int change) noexcept nogil
# Gives a source that has none a place, if there is one: for flows of which no limit was asked. Only where
# `limited[slot]`.
cdef void sources_hold(Sources* sources, uint16_t slot, const Addr* address, uint8_t family) noexcept nogil
