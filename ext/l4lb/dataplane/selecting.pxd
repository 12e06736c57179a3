"""Selections of flows (`l4lb.dataplane.selection`) without Python objects, for a table of a million.

The table is walked in steps: some groups are brought near, copied under the lock, and looked at after it has been
given back, so that a worker waits for microseconds at most and gets the lock in between. Of what matches, the first `limit` are
kept in a heap with the last of them on top; whoever comes behind that one is passed over at once.

A flow never moves in the table, so one that lives through the walk is met exactly once.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from l4lb.dataplane.core cimport Core
from l4lb.dataplane.handover cimport Record
from l4lb.dataplane.packet cimport Addr


cdef enum:
    WORDS = 8           # of a sort key
    STEP = 16           # groups of the flow table that are copied under one lock: 15 KB


cdef struct Sought:
    uint64_t limit
    int order
    bint descending
    uint32_t tick           # by which a flow must not have expired
    int state               # -1: any
    bint by_network
    Addr network
    Addr mask
    uint8_t family          # of the network, as in a flow's protocol
    const uint8_t* slots    # or NULL
    const uint32_t* ranks   # or NULL
    int64_t timeouts_ms[8]
    bint goes_on
    uint64_t after[WORDS]


cdef struct Entry:          # 128 bytes
    uint64_t key[WORDS]
    Record record


cdef struct Heap:
    Entry* entries          # room for `limit`
    uint64_t count
    uint64_t matched


# Reads a `Selection`, which has to live as long as `sought`. ValueError where it makes no sense.
cdef int load_selection(Sought* sought, selection) except -1
# Carries it out; `records` has room for STEP groups. The entries are in order at the end.
cdef void select_flows(Core* core, const Sought* sought, Heap* heap, Record* records) noexcept nogil
