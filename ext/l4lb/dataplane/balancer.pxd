"""The decision core as Python sees it: one `Balancer` a worker, one immutable `NativeTable` for all of them.

Sharing. A worker locks its balancer for a batch of packets; the control plane locks it to publish a
table, to take a snapshot or to expire flows. Both hold it for microseconds. Two queues of one worker may share a
balancer. What several workers write is little and met only by new flows and changes of state: the flow and
connection counts of the slots (atomic, for least-connections and limits must see them all), whose turn it is in a service
(a mutex of the table, so that round-robin goes round once, not once a worker), what limited sources have, and
which backend clients with affinity belong to (a mutex each, of `SharedCounters`).
"""
from libc.stdint cimport uint32_t, uint64_t

from l4lb.dataplane.affinity cimport Affinities
from l4lb.dataplane.handover cimport Record
from l4lb.dataplane.nativetable cimport NativeTable
from l4lb.dataplane.core cimport Core
from l4lb.dataplane.sources cimport Sources


cdef struct Beginning:
    uint64_t begun
    uint64_t failed


cdef class SharedCounters:
    cdef int* slot_flows
    cdef int* slot_active
    cdef int* slot_open
    cdef Sources* sources
    cdef Affinities* affinities
    cdef set limited        # numbers of the services that have, or had, a limit
    cdef learn(self, NativeTable table)


cdef class Balancer:
    cdef Core core
    cdef readonly SharedCounters shared
    cdef NativeTable compiled   # keeps alive what `core.rules` points to
    cdef Beginning* taken       # by slot: what `take_beginnings` has told already
    cdef uint32_t slots_end     # of all tables so far
    cdef void lock(self) noexcept nogil
    cdef void unlock(self) noexcept nogil
    cdef const unsigned char* look(self, bytes packet) except NULL
    cdef present(self, const Record* record, uint64_t now_ms)
    cdef snapshot(self, const Record* record)
    cpdef uint32_t expire_groups(self, uint32_t first, uint32_t count, uint64_t now_ms)
