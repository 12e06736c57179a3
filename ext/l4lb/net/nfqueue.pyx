"""The loop that takes packets from one NFQUEUE, has them decided, and sends the verdicts back.

One thread a queue, without the GIL. A turn of the loop is one `recvmmsg` (the kernel puts one packet in
a datagram, so this is the only way to take several), one pass of the balancer over the batch under its
lock, and one `sendmsg` with all verdicts. The rest of the kernel's forwarding path runs inside that
`sendmsg`, in this thread.

Three ways to answer. *mark*: 40 bytes that carry a mark; the packet itself never came further than its
headers and keeps its segmentation and checksum offloads. *rewrite*: the packet, changed in the receive
buffer, goes back whole, for a verdict's payload replaces the packet. A loop that marks rewrites all the same
what is so small that it came whole: that costs less than the kernel's look-ups by mark (measured: 17 % more
small packets a second), and there is no offload to lose; but not what the kernel is to remember or can do alone.
*sent*: the packet is dropped, and behind the verdicts another one goes out through a raw socket (`sending`).

The socket is opened and configured by `l4lb.net.queue`; message layouts are those of
linux/netfilter/nfnetlink_queue.h. Numbers inside nfnetlink attributes are big-endian.

What can go wrong, and the answer: a verdict that the kernel refuses comes back as NLMSG_ERROR between
the packets and is counted; a receive overrun is counted (the kernel counts the packets lost); a message
that cannot be read is counted and skipped, its packet stays queued until the socket closes.
"""
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree

from l4lb.dataplane.balancer cimport Balancer
from l4lb.dataplane.classify cimport classify, warm
from l4lb.dataplane.core cimport CARRY_MARK, CARRY_REWRITE, CARRY_SENT, Candidate, Core, Outcome
from l4lb.dataplane.packet cimport HEADROOM
from l4lb.dataplane.path cimport decide
from l4lb.dataplane.reasons cimport REASON_NOT_BALANCED, VERDICT_DROP, verdict_of
from l4lb.net.sending cimport BATCH, Sender, sender_add, sender_flush, sender_open

from l4lb.dataplane.table import MARK_MASK

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <arpa/inet.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <time.h>
    #include <linux/netfilter.h>
    #include <linux/netfilter/nfnetlink.h>
    #include <linux/netfilter/nfnetlink_queue.h>
    #include <linux/netlink.h>

    /* What precedes the payload of a verdict: everything but the attribute of the packet itself. */
    struct l4lb_verdict {
        struct nlmsghdr header;
        struct nfgenmsg family;
        struct nlattr verdict_attr;
        struct nfqnl_msg_verdict_hdr verdict;
        struct nlattr mark_attr;
        uint32_t mark;
    };

    static inline unsigned long long l4lb_now_ms(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
        return (unsigned long long)t.tv_sec * 1000 + (unsigned long long)t.tv_nsec / 1000000;
    }
    static inline int l4lb_recvmmsg(int fd, struct mmsghdr *m, unsigned n, int flags) {
        return recvmmsg(fd, m, n, flags, NULL);
    }
    """
    cdef struct iovec:
        void* iov_base
        size_t iov_len
    cdef struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
        int msg_flags
        void* msg_name
        unsigned msg_namelen
    cdef struct mmsghdr:
        msghdr msg_hdr
        unsigned msg_len
    cdef struct nlmsghdr:
        uint32_t nlmsg_len
        uint16_t nlmsg_type
        uint16_t nlmsg_flags
        uint32_t nlmsg_seq
        uint32_t nlmsg_pid
    cdef struct nfgenmsg:
        uint8_t nfgen_family
        uint8_t version
        uint16_t res_id
    cdef struct nlattr:
        uint16_t nla_len
        uint16_t nla_type
    cdef struct nfqnl_msg_verdict_hdr:
        uint32_t verdict
        uint32_t id
    ctypedef struct VerdictMessage "struct l4lb_verdict":
        nlmsghdr header
        nfgenmsg family
        nlattr verdict_attr
        nfqnl_msg_verdict_hdr verdict
        nlattr mark_attr
        uint32_t mark
    cdef enum:
        MSG_WAITFORONE
        MSG_TRUNC
        NLMSG_ERROR
        NLM_F_REQUEST
        NFNL_SUBSYS_QUEUE
        NFQNL_MSG_PACKET
        NFQNL_MSG_VERDICT
        NFQA_PACKET_HDR
        NFQA_VERDICT_HDR
        NFQA_MARK
        NFQA_PAYLOAD
        NFQA_CAP_LEN
        NFQA_SKB_INFO
        NFQA_SKB_CSUMNOTREADY
        NFQA_SKB_GSO
        NF_ACCEPT
        NF_DROP
    uint16_t htons(uint16_t) nogil
    uint32_t htonl(uint32_t) nogil
    uint32_t ntohl(uint32_t) nogil
    int recvmmsg "l4lb_recvmmsg"(int fd, mmsghdr* messages, unsigned count, int flags) nogil
    ssize_t sendmsg(int fd, const msghdr* message, int flags) nogil
    uint64_t now_ms "l4lb_now_ms"() nogil

cdef enum:
    # A message of ours has about 150 bytes before the payload; the rest is for what kernels may add.
    ROOM = 1024
    # Verdicts of one sendmsg stay below the smallest default send buffer.
    SEND_LIMIT = 131072

cdef uint32_t our_marks = MARK_MASK


cdef struct QueuePacket:
    uint32_t id_be
    uint32_t mark
    uint8_t* data
    uint32_t have
    uint32_t length
    bint checksum_ready
    bint gso
    bint rewrite        # whether the decision is carried out in the packet


cdef enum Kind:
    IS_PACKET
    IS_ACK
    IS_ERROR
    IS_OTHER
    IS_BROKEN


cdef inline uint32_t align4(uint32_t n) noexcept nogil:
    return (n + 3) & ~<uint32_t>3


cdef inline uint32_t be32(const uint8_t* p) noexcept nogil:
    cdef uint32_t x
    memcpy(&x, p, 4)
    return ntohl(x)


cdef Kind read_message(uint8_t* message, uint32_t room, QueuePacket* packet, uint32_t* used) noexcept nogil:
    """Reads the netlink message at `message`; `used` is how far the next one is away."""
    cdef nlmsghdr header
    cdef nlattr attr
    cdef uint32_t at, end, info
    cdef int error
    cdef uint8_t* value
    cdef bint identified = False
    used[0] = room
    if room < sizeof(nlmsghdr):
        return IS_BROKEN
    memcpy(&header, message, sizeof(nlmsghdr))
    if header.nlmsg_len < sizeof(nlmsghdr) or header.nlmsg_len > room:
        return IS_BROKEN
    used[0] = min(align4(header.nlmsg_len), room)
    if header.nlmsg_type == NLMSG_ERROR:
        if header.nlmsg_len < sizeof(nlmsghdr) + sizeof(int):
            return IS_BROKEN
        memcpy(&error, message + sizeof(nlmsghdr), sizeof(int))
        return IS_ERROR if error else IS_ACK
    if header.nlmsg_type != (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET):
        return IS_OTHER
    memset(packet, 0, sizeof(QueuePacket))
    packet.checksum_ready = True
    at = sizeof(nlmsghdr) + sizeof(nfgenmsg)
    end = header.nlmsg_len
    while at + sizeof(nlattr) <= end:
        memcpy(&attr, message + at, sizeof(nlattr))
        if attr.nla_len < sizeof(nlattr) or at + attr.nla_len > end:
            return IS_BROKEN
        value = message + at + sizeof(nlattr)
        info = attr.nla_len - <uint32_t>sizeof(nlattr)
        if attr.nla_type == NFQA_PAYLOAD:
            packet.data = value
            packet.have = info
        elif info >= 4:
            if attr.nla_type == NFQA_PACKET_HDR:
                memcpy(&packet.id_be, value, 4)
                identified = True
            elif attr.nla_type == NFQA_MARK:
                packet.mark = be32(value)
            elif attr.nla_type == NFQA_CAP_LEN:
                packet.length = be32(value)
            elif attr.nla_type == NFQA_SKB_INFO:
                packet.checksum_ready = not be32(value) & NFQA_SKB_CSUMNOTREADY
                packet.gso = be32(value) & NFQA_SKB_GSO != 0
        at += align4(attr.nla_len)
    if not identified:
        return IS_BROKEN
    if packet.length < packet.have:
        packet.length = packet.have
    return IS_PACKET


def parse_messages(bytes datagram not None):
    """What `read_message` makes of a datagram: a list of (kind, fields) for tests and for debugging.

    `kind` is "packet", "ack", "error", "other" or "broken"; `fields` is a dictionary for a packet (`id`,
    `mark`, `length`, `checksum_ready`, `gso`, `payload`), else None.
    """
    cdef QueuePacket packet
    cdef uint32_t used
    cdef uint32_t at = 0
    cdef Kind kind
    copy = bytearray(datagram)
    cdef uint8_t* data = copy
    found = []
    while at < <uint32_t>len(copy):
        kind = read_message(data + at, <uint32_t>len(copy) - at, &packet, &used)
        fields = None
        if kind == IS_PACKET:
            fields = {
                "id": ntohl(packet.id_be),
                "mark": packet.mark,
                "length": packet.length,
                "checksum_ready": bool(packet.checksum_ready),
                "gso": bool(packet.gso),
                "payload": (<const char*>packet.data)[:packet.have] if packet.have else b"",
            }
        found.append((("packet", "ack", "error", "other", "broken")[<int>kind], fields))
        at += used
    return found


cdef struct Counters:
    uint64_t packets
    uint64_t batches
    uint64_t acks
    uint64_t verdict_errors     # verdicts that the kernel refused
    uint64_t send_errors        # sends that failed as a whole
    uint64_t overruns           # ENOBUFS
    uint64_t unreadable         # messages that could not be read
    uint64_t dropped            # packets that were decided to be dropped
    uint64_t sent               # packets sent in the place of others
    uint64_t send_failed        # those that could not be sent


cdef class QueueLoop:
    """Serves one queue through a configured socket until it is told to stop.

    `rewrite` says that every packet comes whole and goes back rewritten; `copy_range` is what the socket was configured to
    copy of each packet, in bytes. `balancer` must have a table when `run` is called. `raw4` and `raw6` are raw sockets,
    -1 where there is none; what should be sent through it then fails, and is counted.
    """

    cdef int fd
    cdef bint rewrite
    cdef uint16_t queue
    cdef Balancer balancer
    cdef volatile bint stopping
    cdef Counters counters
    cdef uint8_t* buffers
    cdef size_t buffer_size
    cdef mmsghdr received[BATCH]
    cdef iovec receive_iov[BATCH]
    cdef VerdictMessage verdicts[BATCH]
    cdef nlattr payload_attrs[BATCH]
    cdef iovec send_iov[BATCH * 3]
    cdef QueuePacket packets[BATCH]
    cdef Candidate candidates[BATCH]
    cdef Sender sender

    def __cinit__(self, Balancer balancer not None, int fd, *, uint16_t queue, uint32_t copy_range, bint rewrite,
                  int raw4=-1, int raw6=-1):
        cdef int i
        self.balancer = balancer
        self.fd = fd
        self.queue = queue
        self.rewrite = rewrite
        self.buffer_size = HEADROOM + align4(copy_range) + ROOM
        sender_open(&self.sender, raw4, raw6)
        self.buffers = <uint8_t*>PyMem_RawCalloc(BATCH, self.buffer_size)
        if self.buffers == NULL:
            raise MemoryError
        for i in range(BATCH):
            self.receive_iov[i].iov_base = self.buffers + i * self.buffer_size + HEADROOM
            self.receive_iov[i].iov_len = self.buffer_size - HEADROOM
            self.received[i].msg_hdr.msg_iov = &self.receive_iov[i]
            self.received[i].msg_hdr.msg_iovlen = 1
            self.prepare(&self.verdicts[i])

    def __dealloc__(self):
        PyMem_RawFree(self.buffers)

    cdef void prepare(self, VerdictMessage* message) noexcept nogil:
        """The parts of a verdict that never change."""
        message.header.nlmsg_len = sizeof(VerdictMessage)
        message.header.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT
        message.header.nlmsg_flags = NLM_F_REQUEST
        message.family.nfgen_family = 0
        message.family.version = 0
        message.family.res_id = htons(self.queue)
        message.verdict_attr.nla_len = sizeof(nlattr) + sizeof(nfqnl_msg_verdict_hdr)
        message.verdict_attr.nla_type = NFQA_VERDICT_HDR
        message.mark_attr.nla_len = sizeof(nlattr) + sizeof(uint32_t)
        message.mark_attr.nla_type = NFQA_MARK

    def run(self):
        """Serves the queue in this thread, without the GIL, until `stop`. OSError when the socket fails."""
        cdef int error
        with nogil:
            error = self.serve()
        if error:
            raise OSError(error, f"queue {self.queue}: the netlink socket failed")

    def stop(self):
        """Makes `run` return after the batch it is at. The socket must be woken (`queue.wake`)."""
        self.stopping = True

    def counts(self):
        """Counters since the start, by name."""
        self.counters.sent = self.sender.sent
        self.counters.send_failed = self.sender.failed
        return self.counters

    cdef int serve(self) noexcept nogil:
        cdef int count
        while not self.stopping:
            count = recvmmsg(self.fd, self.received, BATCH, MSG_WAITFORONE)
            if count < 0:
                if errno == ENOBUFS:
                    self.counters.overruns += 1
                elif errno != EINTR and errno != EAGAIN:
                    return errno
                continue
            self.answer(self.read_batch(count))
        return 0

    cdef int read_batch(self, int datagrams) noexcept nogil:
        """Fills `packets` from the datagrams received; returns how many there are."""
        cdef int found = 0
        cdef int i
        cdef uint8_t* data
        cdef uint8_t* writable
        cdef uint32_t room, used
        cdef Kind kind
        for i in range(datagrams):
            data = <uint8_t*>self.receive_iov[i].iov_base
            writable = data - HEADROOM
            room = self.received[i].msg_len
            if self.received[i].msg_hdr.msg_flags & MSG_TRUNC:
                self.counters.unreadable += 1
                continue
            while room:
                kind = read_message(data, room, &self.packets[found], &used)
                if kind == IS_PACKET and self.packets[found].data - writable < HEADROOM:
                    kind = IS_BROKEN  # so close behind another packet that its headers would be overwritten
                if kind == IS_PACKET:
                    found += 1
                    writable = data + used
                elif kind == IS_ERROR:
                    self.counters.verdict_errors += 1
                elif kind == IS_ACK:
                    self.counters.acks += 1
                else:
                    self.counters.unreadable += 1
                data += used
                room -= used
                # The kernel sends one packet a datagram; more than fit in a batch cannot come in one.
                if found == BATCH:
                    break
        return found

    cdef void answer(self, int count) noexcept nogil:
        """Decides a batch and sends its verdicts."""
        cdef uint64_t now = now_ms()
        cdef Core* core = &self.balancer.core
        cdef Outcome outcome
        cdef QueuePacket* packet
        cdef int i
        cdef int parts = 0
        cdef size_t bytes = 0
        if count == 0:
            return
        self.counters.packets += count
        self.counters.batches += 1
        self.balancer.lock()
        for i in range(count):
            packet = &self.packets[i]
            packet.rewrite = self.rewrite or (packet.have == packet.length and not packet.gso)
            classify(core, &self.candidates[i], packet.data, packet.have, packet.length,
                     packet.checksum_ready, packet.gso, packet.rewrite)
        if count > 1:
            for i in range(count):
                warm(core, &self.candidates[i])
        for i in range(count):
            decide(core, &self.candidates[i], self.packets[i].rewrite, now, &outcome)
            if bytes + sizeof(VerdictMessage) + self.packets[i].have + 8 > SEND_LIMIT:
                self.send(parts)
                parts = 0
                bytes = 0
            bytes += self.add_verdict(i, &outcome, &parts)
            if outcome.carry == CARRY_SENT:
                sender_add(&self.sender, outcome.out, outcome.out_length, outcome.splittable)
        self.balancer.unlock()
        self.send(parts)
        sender_flush(&self.sender)

    cdef size_t add_verdict(self, int i, const Outcome* outcome, int* parts) noexcept nogil:
        """Appends verdict `i` to what will be sent; returns its size."""
        cdef VerdictMessage* message = &self.verdicts[i]
        cdef QueuePacket* packet = &self.packets[i]
        cdef bint drop = verdict_of(outcome.reason) == VERDICT_DROP
        cdef uint32_t mark = packet.mark & ~our_marks
        cdef uint32_t padded = align4(packet.have)
        cdef iovec* iov = &self.send_iov[parts[0]]
        if outcome.carry == CARRY_MARK:
            mark |= outcome.mark
        elif outcome.reason == REASON_NOT_BALANCED:
            # The rules know of a service that the table does not know yet: let them count and drop it.
            mark = packet.mark
        self.counters.dropped += drop
        message.verdict.verdict = htonl(NF_DROP if drop or outcome.carry == CARRY_SENT else NF_ACCEPT)
        message.verdict.id = packet.id_be
        message.mark = htonl(mark)
        message.header.nlmsg_len = sizeof(VerdictMessage)
        iov[0].iov_base = message
        iov[0].iov_len = sizeof(VerdictMessage)
        if outcome.carry != CARRY_REWRITE:
            parts[0] += 1
            return sizeof(VerdictMessage)
        # The padding is whatever follows the packet in its receive buffer; the kernel does not read it.
        self.payload_attrs[i].nla_len = <uint16_t>(sizeof(nlattr) + packet.have)
        self.payload_attrs[i].nla_type = NFQA_PAYLOAD
        message.header.nlmsg_len += <uint32_t>sizeof(nlattr) + padded
        iov[1].iov_base = &self.payload_attrs[i]
        iov[1].iov_len = sizeof(nlattr)
        iov[2].iov_base = packet.data
        iov[2].iov_len = padded
        parts[0] += 3
        return message.header.nlmsg_len

    cdef void send(self, int parts) noexcept nogil:
        """Gives the kernel the verdicts. A failed send would leave packets queued, so it is tried again."""
        cdef msghdr message
        cdef int attempt
        if parts == 0:
            return
        memset(&message, 0, sizeof(message))
        message.msg_iov = self.send_iov
        message.msg_iovlen = parts
        for attempt in range(3):
            if sendmsg(self.fd, &message, 0) >= 0:
                return
            if errno != EINTR:
                self.counters.send_errors += 1
