"""Sends packets, IP headers and all, through a pair of raw sockets.

A packet goes to the destination that its own header says. One that is larger than the way's MTU and may be cut
(`splittable`: IPv4 without DF, or a tunnel around it) is cut into fragments here, for the kernel does not do that to
packets that bring their header. Sockets do not block: what has no room in them is lost, as on any full link.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef enum:
    BATCH = 16      # packets that a sender holds at most


cdef struct Packed:
    uint8_t* data
    uint32_t length
    bint splittable


cdef struct Sender:
    int sockets[2]      # IPv4, IPv6; -1: none
    Packed packets[2][BATCH]
    uint32_t counts[2]
    uint64_t sent
    uint64_t failed
    uint32_t identification     # of the last packet that was cut


cdef void sender_open(Sender* sender, int raw4, int raw6) noexcept nogil
# Holds a packet until `sender_flush`; its memory must stay so long.
cdef void sender_add(Sender* sender, uint8_t* data, uint32_t length, bint splittable) noexcept nogil
cdef void sender_flush(Sender* sender) noexcept nogil
