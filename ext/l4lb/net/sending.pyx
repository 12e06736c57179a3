"""Raw sending (see sending.pxd)."""
from libc.errno cimport EINTR, EMSGSIZE, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from l4lb.dataplane.checksum cimport put_checksum, sum_bytes
from l4lb.dataplane.packet cimport be16, put16

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <netinet/in.h>
    #include <sys/socket.h>
    #include <sys/uio.h>

    union l4lb_end {
        struct sockaddr_in ipv4;
        struct sockaddr_in6 ipv6;
    };

    /* Where a packet goes to, by its own header; returns the size. */
    static unsigned l4lb_aim(union l4lb_end *end, const unsigned char *packet) {
        memset(end, 0, sizeof *end);
        if (packet[0] >> 4 == 4) {
            end->ipv4.sin_family = AF_INET;
            memcpy(&end->ipv4.sin_addr, packet + 16, 4);
            return sizeof end->ipv4;
        }
        end->ipv6.sin6_family = AF_INET6;
        memcpy(&end->ipv6.sin6_addr, packet + 24, 16);
        return sizeof end->ipv6;
    }
    static inline int l4lb_sendmmsg(int fd, struct mmsghdr *m, unsigned n) {
        return sendmmsg(fd, m, n, MSG_DONTWAIT);
    }
    static inline ssize_t l4lb_sendmsg(int fd, const struct msghdr *m) {
        return sendmsg(fd, m, MSG_DONTWAIT);
    }
    """
    cdef struct iovec:
        void* iov_base
        size_t iov_len
    cdef struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_name
        unsigned msg_namelen
    cdef struct mmsghdr:
        msghdr msg_hdr
    ctypedef union End "union l4lb_end":
        pass
    unsigned aim "l4lb_aim"(End* end, const uint8_t* packet) nogil
    int sendmmsg "l4lb_sendmmsg"(int fd, mmsghdr* messages, unsigned count) nogil
    ssize_t sendmsg "l4lb_sendmsg"(int fd, const msghdr* message) nogil

cdef enum:
    IPV4, IPV6
    IPV6_HEADER = 40
    FRAGMENT_HEADER = 8
    PROTO_FRAGMENT = 44
    LARGEST_HEADER = 60
    # What a link carries: nearly every one the first, every one the second (RFC 791, RFC 8200).
    USUAL_MTU = 1500
    LEAST_MTU_IPV4 = 576
    LEAST_MTU_IPV6 = 1280


cdef void sender_open(Sender* sender, int raw4, int raw6) noexcept nogil:
    memset(sender, 0, sizeof(Sender))
    sender.sockets[IPV4] = raw4
    sender.sockets[IPV6] = raw6


cdef void sender_add(Sender* sender, uint8_t* data, uint32_t length, bint splittable) noexcept nogil:
    cdef int family = IPV4 if data[0] >> 4 == 4 else IPV6
    cdef Packed* packed = &sender.packets[family][sender.counts[family]]
    if sender.sockets[family] < 0 or sender.counts[family] == BATCH:
        sender.failed += 1
        return
    packed.data = data
    packed.length = length
    packed.splittable = splittable
    sender.counts[family] += 1


cdef void sender_flush(Sender* sender) noexcept nogil:
    flush_family(sender, IPV4)
    flush_family(sender, IPV6)


cdef void flush_family(Sender* sender, int family) noexcept nogil:
    cdef mmsghdr messages[BATCH]
    cdef iovec parts[BATCH]
    cdef End ends[BATCH]
    cdef Packed* packed = sender.packets[family]
    cdef uint32_t count = sender.counts[family]
    cdef uint32_t i
    cdef uint32_t done = 0
    cdef int taken
    if count == 0:
        return
    memset(messages, 0, count * sizeof(mmsghdr))
    for i in range(count):
        parts[i].iov_base = packed[i].data
        parts[i].iov_len = packed[i].length
        messages[i].msg_hdr.msg_iov = parts + i
        messages[i].msg_hdr.msg_iovlen = 1
        messages[i].msg_hdr.msg_name = ends + i
        messages[i].msg_hdr.msg_namelen = aim(ends + i, packed[i].data)
    sender.counts[family] = 0
    while done < count:
        # An error is that of the first message; one of a later message comes with the next call.
        taken = sendmmsg(sender.sockets[family], messages + done, count - done)
        if taken > 0:
            sender.sent += taken
            done += taken
        elif errno != EINTR:
            if errno == EMSGSIZE and packed[done].splittable and split(
                sender, family, packed + done, &messages[done].msg_hdr
            ):
                sender.sent += 1
            else:
                sender.failed += 1
            done += 1


cdef bint split(Sender* sender, int family, const Packed* packed, const msghdr* whole) noexcept nogil:
    """Sends a packet in fragments; returns whether all of them went."""
    sender.identification += 1
    if send_fragments(sender, family, packed, whole, USUAL_MTU):
        return True
    return errno == EMSGSIZE and send_fragments(
        sender, family, packed, whole, LEAST_MTU_IPV4 if family == IPV4 else LEAST_MTU_IPV6
    )


cdef bint send_fragments(Sender* sender, int family, const Packed* packed, const msghdr* whole,
                         uint32_t mtu) noexcept nogil:
    cdef uint8_t header[LARGEST_HEADER]
    cdef iovec parts[2]
    cdef msghdr message = whole[0]
    # Up to here the packet's header is the fragments', too.
    cdef uint32_t copied = (packed.data[0] & 15) * 4 if family == IPV4 else IPV6_HEADER
    cdef uint32_t size = copied if family == IPV4 else copied + FRAGMENT_HEADER
    cdef uint32_t step = (mtu - size) & ~<uint32_t>7
    cdef uint32_t end = packed.length - copied
    cdef uint32_t at = 0
    cdef uint32_t piece
    message.msg_iov = parts
    message.msg_iovlen = 2
    memcpy(header, packed.data, copied)
    while at < end:
        piece = min(step, end - at)
        if family == IPV4:
            mark_ipv4(header, copied, at, piece, at + piece < end, sender.identification)
        else:
            mark_ipv6(header, packed.data[6], at, piece, at + piece < end, sender.identification)
        parts[0].iov_base = header
        parts[0].iov_len = size
        parts[1].iov_base = packed.data + copied + at
        parts[1].iov_len = piece
        while sendmsg(sender.sockets[family], &message) < 0:
            if errno != EINTR:
                return False
        at += piece
    return True


cdef void mark_ipv4(uint8_t* header, uint32_t size, uint32_t at, uint32_t piece, bint more,
                    uint32_t identification) noexcept nogil:
    put16(header + 2, size + piece)
    if be16(header + 4) == 0:
        # 0 would have the kernel choose another one for every fragment.
        put16(header + 4, max(identification & 0xFFFF, 1))
    put16(header + 6, at // 8 | (0x2000 if more else 0))
    header[10] = header[11] = 0
    put_checksum(header + 10, sum_bytes(header, size))


cdef void mark_ipv6(uint8_t* header, uint8_t protocol, uint32_t at, uint32_t piece, bint more,
                    uint32_t identification) noexcept nogil:
    cdef uint8_t* fragment = header + IPV6_HEADER
    put16(header + 4, FRAGMENT_HEADER + piece)
    header[6] = PROTO_FRAGMENT
    fragment[0] = protocol
    fragment[1] = 0
    put16(fragment + 2, at | (1 if more else 0))
    put16(fragment + 4, identification >> 16)
    put16(fragment + 6, identification)
