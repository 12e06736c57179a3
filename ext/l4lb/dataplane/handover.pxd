"""Flows as one balancer hands them to the next: in the memory layout of this machine, for a program that replaces
the running one. What a record means changes with the format's number (`balancer.FORMAT`).
"""
from libc.stdint cimport uint16_t, uint32_t

from l4lb.dataplane.flowtable cimport Flow
from l4lb.dataplane.core cimport Core


cdef struct Record:     # 64 bytes
    Flow flow
    uint16_t address    # of the masquerade pool, by index
    uint16_t port       # of the masquerade, 0: none
    uint32_t unused


# The records of the flows in `count` places from `first` on; returns how many there are.
cdef size_t copy_records(const Core* core, Record* records, size_t first, size_t count) noexcept nogil
# Remembers a flow; returns whether it has room, and its masquerade port is free and the worker's. One that is known
# already, or could not have been remembered by any balancer, does not fit.
cdef bint load_record(Core* core, const Record* record) noexcept nogil
