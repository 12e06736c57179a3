"""The slow path: a thread that serves the queue of ICMP errors about flows, and of checks in tunnels.

Errors are few, for the rules limit their rate, so this is Python: `l4lb.dataplane.icmp` says what becomes of
each, the thread carries it out. What the rules queue carries the mark of its hook (`Hook.mark`). Every packet
gets its verdict, whatever it says: an exception is counted, logged at most once a minute, and the packet
accepted as it was.

Each packet comes whole and with its checksums: no offload leaves an ICMP message unfinished, and what checks
send the kernel finishes, and cuts into segments, before it is queued. A check's packet carries its backend's
forward mark.
"""

from __future__ import annotations

import errno
import logging
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from l4lb.dataplane.check_tunnels import CheckTunnels
from l4lb.dataplane.icmp import Translator
from l4lb.dataplane.icmp_words import Hook, IcmpReason, Translation
from l4lb.dataplane.table import MARK_DECIDED, MARK_LEARN, MARK_MASK, MARK_REPLY, Table
from l4lb.errors import CapabilityError, L4lbError
from l4lb.net.flowfinder import WorkersFlows
from l4lb.net.logs import log
from l4lb.net.netlink import build_attribute, build_message
from l4lb.net.nfqueue import parse_messages
from l4lb.net.queue import COPY_ALL, open_queue, wake
from l4lb.net.rawsocket import RawSender
from l4lb.net.worker import OnFailure, Worker

if TYPE_CHECKING:  # only the stub has it
    from l4lb.net.nfqueue import PacketFields

QUEUE_LENGTH = 1024
"""Errors that the kernel holds; when they are more, they pass untouched."""

_MSG_VERDICT = 3 << 8 | 1
_ATTR_VERDICT, _ATTR_MARK, _ATTR_PAYLOAD = 2, 3, 10
_NF_DROP, _NF_ACCEPT = 0, 1
_LARGEST_DATAGRAM = COPY_ALL + 4096
_JOIN_TIMEOUT_S = 5
_LOG_EVERY_S = 60
_HOOKS = {hook.mark: hook for hook in Hook}
_OTHER_COUNTS = (
    "packets",
    "unmarked",
    "failed",
    "send_errors",
    "verdict_errors",
    "overruns",
    "unreadable",
)


class SlowPath:
    """Serves queue `number`; `table` and `workers` are asked anew for each error.

    `key` is the 16-byte hash key. `on_failure` is called, in the thread, when the queue's socket fails.
    """

    def __init__(
        self,
        number: int,
        *,
        key: bytes,
        table: Callable[[], Table],
        workers: Callable[[], Sequence[Worker]],
        on_failure: OnFailure,
    ) -> None:
        self.number = number
        self._key = key
        self._table = table
        self._flows = WorkersFlows(workers)
        self._on_failure = on_failure
        self._translator: Translator | None = None
        self._tunnels: CheckTunnels | None = None
        self._counts: Counter[str] = Counter()
        self._last_logged_s = -float(_LOG_EVERY_S)
        self._stopping = False
        self._socket = open_queue(number, length=QUEUE_LENGTH, copy_range=COPY_ALL, fail_open=True, gso=False)
        try:
            self._sender = RawSender()
        except OSError as error:
            self._socket.close()
            if isinstance(error, PermissionError):
                raise CapabilityError("raw sockets: needs CAP_NET_RAW; run as root") from error
            raise L4lbError(f"raw sockets: {error.strerror}") from error
        self._thread = threading.Thread(target=self._serve, name=f"icmp-{number}", daemon=True)

    def start(self) -> None:
        """Begins to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and gives the queue up; errors still queued are dropped by the kernel."""
        self._stopping = True
        if self._thread.is_alive():
            wake(self._socket, self.number)
            self._thread.join(_JOIN_TIMEOUT_S)
            if self._thread.is_alive():
                raise L4lbError(f"queue {self.number}: its thread does not end")
        self._socket.close()
        self._sender.close()

    def counts(self) -> dict[str, int]:
        """Counters since the start: errors by reason (in small letters), and what happened to the queue."""
        names = (*(reason.name.lower() for reason in IcmpReason), *_OTHER_COUNTS)
        return {name: self._counts[name] for name in names}

    def _serve(self) -> None:
        while not self._stopping:
            try:
                datagram = self._socket.recv(_LARGEST_DATAGRAM)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    self._counts["overruns"] += 1
                    continue
                self._on_failure(f"queue {self.number}: the netlink socket failed: {error.strerror}")
                return
            for kind, fields in parse_messages(datagram):
                if kind == "packet" and fields is not None:
                    self._answer(fields)
                elif kind == "error":
                    self._counts["verdict_errors"] += 1
                elif kind != "ack":
                    self._counts["unreadable"] += 1

    def _answer(self, fields: PacketFields) -> None:
        if fields["mark"] & (MARK_LEARN | MARK_REPLY) == MARK_DECIDED:
            self._carry_check(fields)
            self._say(fields, _NF_DROP, 0, None)
            return
        self._counts["packets"] += 1
        translation = self._translate(fields)
        verdict, payload = _NF_ACCEPT, None
        if translation is not None:
            self._counts[translation.reason.name.lower()] += 1
            payload = translation.packet
        if translation is not None and translation.sent and payload is not None:
            self._send(payload)
            verdict, payload = _NF_DROP, None
        self._say(fields, verdict, translation.mark if translation is not None else 0, payload)

    def _say(self, fields: PacketFields, verdict: int, mark: int, payload: bytes | None) -> None:
        mark |= fields["mark"] & ~MARK_MASK
        message = _build_verdict(self.number, fields["id"], verdict, mark, payload)
        try:
            self._socket.sendto(message, (0, 0))
        except OSError as error:
            self._complain("verdict_errors", error)

    def _carry_check(self, fields: PacketFields) -> None:
        try:
            table = self._table()
            if self._tunnels is None or self._tunnels.table is not table:
                self._tunnels = CheckTunnels(table, self._key)
            packet = self._tunnels.carry(fields["payload"], fields["mark"] & MARK_MASK)
        except Exception as error:
            self._complain("failed", error)
            return
        if packet is not None:
            self._send(packet)

    def _translate(self, fields: PacketFields) -> Translation | None:
        """None where it cannot be told what to do."""
        hook = _HOOKS.get(fields["mark"] & MARK_MASK)
        if hook is None:
            self._counts["unmarked"] += 1
            return None
        try:
            table = self._table()
            if self._translator is None or self._translator.table is not table:
                self._translator = Translator(table, self._key)
            return self._translator.translate(fields["payload"], hook, self._flows)
        except Exception as error:
            self._complain("failed", error)
            return None

    def _send(self, packet: bytes) -> None:
        try:
            self._sender.send(packet)
        except OSError as error:
            self._complain("send_errors", error)

    def _complain(self, count: str, error: Exception) -> None:
        """Counts, and logs unless something was logged a short while ago."""
        self._counts[count] += 1
        now = time.monotonic()
        if now - self._last_logged_s >= _LOG_EVERY_S:
            self._last_logged_s = now
            log(
                "a packet of the slow path could not be handled",
                level=logging.ERROR,
                what=count,
                why=repr(error),
            )


def _build_verdict(queue: int, packet_id: int, verdict: int, mark: int, payload: bytes | None) -> bytes:
    """NFQNL_MSG_VERDICT (linux/netfilter/nfnetlink_queue.h)."""
    body = build_attribute(_ATTR_VERDICT, struct.pack(">II", verdict, packet_id))
    body += build_attribute(_ATTR_MARK, struct.pack(">I", mark))
    if payload is not None:
        body += build_attribute(_ATTR_PAYLOAD, payload)
    return build_message(_MSG_VERDICT, 0, 0, 0, queue, body)
