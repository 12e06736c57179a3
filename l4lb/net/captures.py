"""Capture files: pcap and pcapng are read, pcapng is written, both by Scapy.

What is read is stripped of its link header. What is written has that of `Linux cooked` captures, which is the
same for IPv4, IPv6 and every kind of interface, so that one file can hold them all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from scapy.error import Scapy_Exception
from scapy.layers.l2 import CookedLinux
from scapy.packet import Raw
from scapy.utils import PcapNgWriter, RawPcapNgReader

from l4lb.errors import ConfigError, L4lbError
from l4lb.net.sniffer import Seen

_ETHERNET, _COOKED, _COOKED_2 = 1, 113, 276
_RAW = frozenset({12, 14, 101, 228, 229})
_LOOPBACK = frozenset({0, 108})
_IP_TYPES = frozenset({0x0800, 0x86DD})
_VLAN_TYPES = frozenset({0x8100, 0x88A8, 0x9100})
_COOKED_HEADER = 16
_READER_LOG = logging.getLogger("scapy.runtime")


@dataclass(frozen=True, slots=True)
class Captured:
    """A packet of a capture. `data` is its beginning from the IP header on, empty where it is not IP;
    `length` is all of it in bytes, `time_s` when it was seen: seconds, mostly since the epoch."""

    data: bytes
    length: int
    time_s: float


class CaptureReader:
    """Reads a pcap or pcapng file, compressed by gzip or not, packet by packet.

    ConfigError where the file cannot be opened, L4lbError where it is no capture.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb")
            self.size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        self._complaints: list[str] = []
        _READER_LOG.addFilter(self._note)
        try:
            reader: Any = RawPcapNgReader  # takes an open file too, whatever its signature says
            self._reader = reader(self._file)
        except (Scapy_Exception, OSError, EOFError) as error:
            self.close()
            raise L4lbError(f"{path}: is no pcap or pcapng file") from error

    @property
    def position(self) -> int:
        """Bytes of the file that have been read."""
        return self._file.tell()

    def __enter__(self) -> CaptureReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        _READER_LOG.removeFilter(self._note)
        self._file.close()

    def __iter__(self) -> Iterator[Captured]:
        """Every packet. L4lbError behind the last whole one where the file is damaged, or has packets of a
        link type that is not known."""
        last = 0.0
        for data, about in self._reader:
            if hasattr(about, "linktype"):
                link, last = about.linktype, _time_ng(about, last)
            else:
                link, last = (
                    self._reader.linktype,
                    about.sec + about.usec / (1e9 if self._reader.nano else 1e6),
                )
                if len(data) < min(about.caplen, about.wirelen):
                    self._complaints.append("it ends within a packet")
                    break
            start = _ip_start(data, link)
            if start is None:
                raise L4lbError(f"{self.path}: has packets of link type {link}, which is not known here")
            whole = max(about.wirelen or 0, len(data))
            yield Captured(data[start:], whole - start, last) if start >= 0 else Captured(b"", whole, last)
        if self._complaints:
            raise L4lbError(f"{self.path}: is damaged: {self._complaints[0]}")

    def _note(self, record: logging.LogRecord) -> bool:
        """What Scapy finds wrong is ours to say."""
        self._complaints.append(record.getMessage())
        return False


class CaptureWriter:
    """Writes a pcapng file; each packet may have a comment. L4lbError where it cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._writer: Any = PcapNgWriter(str(path))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error

    def write(self, packet: Seen, comment: str) -> None:
        """Adds one packet."""
        kind = 0x0800 if packet.data[0] >> 4 == 4 else 0x86DD
        record = CookedLinux(pkttype=0, proto=kind) / Raw(packet.data)
        record.time = packet.time_s
        record.wirelen = _COOKED_HEADER + packet.length
        record.sniffed_on = packet.interface
        record.comment = comment.encode()
        try:
            self._writer.write(record)
        except OSError as error:
            raise self._unwritable(error) from error

    def flush(self) -> None:
        """Brings what was written to the file, so that it can be read meanwhile."""
        try:
            self._writer.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Ends the file; one without packets is a whole file too."""
        self._writer.linktype = _COOKED
        try:
            self._writer.close()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> L4lbError:
        return L4lbError(f"{self._path}: cannot be written: {error.strerror}")


def _time_ng(about: Any, last: float) -> float:
    """Simple packet blocks have no time: they are taken to follow at once."""
    return last if about.tshigh is None else float(((about.tshigh << 32) + about.tslow) / about.tsresol)


def _ip_start(data: bytes, link: int) -> int | None:
    """Where the IP header begins, -1 where there is none, None where the link type is not known."""
    if link in _RAW:
        return 0
    if link in _LOOPBACK:
        return 4 if len(data) > 4 and data[4] >> 4 in (4, 6) else -1
    if link == _COOKED_2:
        return 20 if int.from_bytes(data[:2]) in _IP_TYPES else -1
    if link not in (_ETHERNET, _COOKED):
        return None
    start = 14 if link == _ETHERNET else _COOKED_HEADER
    kind = int.from_bytes(data[start - 2 : start])
    while kind in _VLAN_TYPES:
        start += 4
        kind = int.from_bytes(data[start - 2 : start])
    return start if kind in _IP_TYPES else -1
