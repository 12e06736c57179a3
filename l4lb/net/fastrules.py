"""The rules of the fast path that the `nft` program cannot write: what one look-up finds, the next one asks
for or the packet gets, without a detour by the packet's mark.

A flow stands in the registers as its key, the client's endpoint, the other's and the protocol, and behind it
what is known of it: the device's index, the mark, the two addresses of the frame. An endpoint is an address
and a port in a row, so that one look-up by mark replaces both. With IPv6 that is all sixteen registers.

`nft` lists such rules only roughly: it does not see that a look-up fills several registers, and shows what
they had before. Version 1.0.6 (Debian 12) complains of a register that had nothing, and aborts over a key
whose first register has been looked up. So every register is filled with something before it is read, and the
maps that complete a key begin with a word that is not used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from l4lb.control.elements import SIZES
from l4lb.control.fastpath import (
    ANSWER,
    COUNTS_IN,
    COUNTS_OUT,
    DIRECT,
    DIRECT_COUNTS,
    KINDS,
    PROTOCOLS,
    REQUEST,
    chain_of,
    learning_chain,
)
from l4lb.dataplane.table import MARK_MASK, MARK_PENDING, MARK_REPLY
from l4lb.net.expressions import (
    DELETE,
    FIRST_REGISTER,
    LINK_HEADER,
    META_MARK,
    META_OIF,
    NETWORK_HEADER,
    TRANSPORT_HEADER,
    UPDATE,
    Checksum,
    change_map,
    compare,
    forward,
    load_meta,
    load_payload,
    look_up,
    mask_bytes,
    mask_number,
    write_payload,
)

_FRAME_BYTES = 12
"""Destination and source of a frame."""
_KNOWN_BYTES = 8 + _FRAME_BYTES
"""Device, mark and frame."""
_LEAVES = bytes.fromhex("00070000")
"""FIN, SYN and RST in the word of the TCP header that begins at byte 12."""
_CHECKSUM = bytes.fromhex("0000ffff")
"""The checksum in the second word of the UDP header."""
_PORT_CHECKSUMS = {"tcp": 16, "udp": 6}


def fast_rules(families: Iterable[int]) -> Iterator[tuple[str, bytes]]:
    """Chain and expressions of each rule for these families, for `l4lb.net.nft.add_rules`."""
    for family in families:
        rules = _Rules(family)
        for kind in KINDS:
            for protocol in PROTOCOLS:
                chain = chain_of(kind, protocol, family)
                if protocol == "tcp":
                    yield chain, rules.forget(kind)
                yield chain, rules.forward(kind, protocol)
        for learn in (rules.learn_answer, rules.learn_request, rules.learn_direct):
            yield learning_chain(family), learn()


class _Rules:
    """Those of one family; a rule whose expression finds nothing has ended."""

    def __init__(self, family: int) -> None:
        self._family = family
        self._size = SIZES[family]
        if family == 4:
            self._source_at, self._destination_at, self._protocol_at = 12, 16, 9
        else:
            self._source_at, self._destination_at, self._protocol_at = 8, 24, 6
        words = self._size // 4
        # Registers, in the order of a key and of what is known.
        self._client = FIRST_REGISTER
        self._client_port = self._client + words
        self._other = self._client_port + 1
        self._other_port = self._other + words
        self._protocol = self._other_port + 1
        self._device = self._protocol + 1
        self._mark = self._device + 1
        self._frame = self._mark + 1

    def forward(self, kind: str, protocol: str) -> bytes:
        """Sends a packet of a known flow on its way. With TCP, what begins or ends a connection has been
        forgotten and is not found."""
        parts = [
            self._has_checksum(kind, protocol),
            self._flow(kind),
            load_payload(NETWORK_HEADER, 0, 4, self._frame),  # for nft, see above
            look_up(self._flows(kind), self._client, self._device),
        ]
        if kind == DIRECT:
            parts.append(look_up(DIRECT_COUNTS, self._mark))
        elif kind == REQUEST:
            parts.append(look_up(COUNTS_IN[self._family], self._mark, self._other))
            parts.append(self._write_other(protocol, self._destination_at, 2))
        else:
            parts.append(look_up(COUNTS_OUT[self._family], self._mark, self._other))
            parts.append(self._write_other(protocol, self._source_at, 0))
        parts.append(write_payload(LINK_HEADER, 0, _FRAME_BYTES, self._frame))
        parts.append(forward(self._device))
        return b"".join(parts)

    def forget(self, kind: str) -> bytes:
        """Forgets the flow of a packet that begins or ends a connection. It is looked up first, since most
        are too short to be known. The value that an element is deleted with is not looked at, but has to be
        given: anything of its size."""
        return b"".join(
            [
                load_payload(TRANSPORT_HEADER, 12, 4, self._mark),
                mask_bytes(self._mark, _LEAVES),
                compare(self._mark, bytes(4), equal=False),
                self._flow(kind),
                look_up(self._flows(kind), self._client, self._device),
                load_payload(NETWORK_HEADER, 0, _KNOWN_BYTES, self._device),
                change_map(self._flows(kind), DELETE, self._client, self._device),
            ]
        )

    def learn_direct(self) -> bytes:
        """Learns a flow of direct return, whose packet goes out as it came in."""
        return b"".join(
            [
                self._forward_mark(),
                look_up("direct_marks", self._mark),
                self._flow(DIRECT),
                self._learn(DIRECT),
            ]
        )

    def learn_request(self) -> bytes:
        """Learns the flow of a packet that NAT has sent to a backend, by the VIP that it came for."""
        return b"".join(
            [
                self._forward_mark(),
                self._flow(REQUEST),
                self._complete(REQUEST, "origins"),
                self._learn(REQUEST),
            ]
        )

    def learn_answer(self) -> bytes:
        """Learns the flow of an answer, which has the VIP by now, where that of its requests is known."""
        return b"".join(
            [
                load_meta(META_MARK, self._mark),
                mask_number(self._mark, MARK_REPLY),
                compare(self._mark, struct.pack("=I", MARK_REPLY)),
                self._flow(ANSWER),
                look_up(self._flows(REQUEST), self._client, self._device),
                self._complete(ANSWER, "ends"),
                self._learn(ANSWER),
            ]
        )

    def _flows(self, kind: str) -> str:
        return f"{kind}_flows{self._family}"

    def _flow(self, kind: str) -> bytes:
        """The packet's key."""
        source, destination = (self._source_at, 0), (self._destination_at, 2)
        client, other = (destination, source) if kind == ANSWER else (source, destination)
        return b"".join(
            [
                self._endpoint(*client, self._client),
                self._endpoint(*other, self._other),
                load_payload(NETWORK_HEADER, self._protocol_at, 1, self._protocol),
            ]
        )

    def _endpoint(self, address_at: int, port_at: int, register: int) -> bytes:
        address = load_payload(NETWORK_HEADER, address_at, self._size, register)
        return address + load_payload(TRANSPORT_HEADER, port_at, 2, register + self._size // 4)

    def _complete(self, kind: str, name: str) -> bytes:
        """Replaces the other's endpoint by the one that the mark stands for. The word before it, which is not
        used, is where the client's port has to be again."""
        port_at = 2 if kind == ANSWER else 0
        return look_up(f"{name}{self._family}", self._mark, self._client_port) + load_payload(
            TRANSPORT_HEADER, port_at, 2, self._client_port
        )

    def _forward_mark(self) -> bytes:
        return load_meta(META_MARK, self._mark) + mask_number(self._mark, MARK_MASK & ~MARK_PENDING)

    def _learn(self, kind: str) -> bytes:
        """Remembers the key with the mark that is there and the way that the packet has taken."""
        return b"".join(
            [
                load_meta(META_OIF, self._device),
                load_payload(LINK_HEADER, 0, _FRAME_BYTES, self._frame),
                change_map(self._flows(kind), UPDATE, self._client, self._device),
            ]
        )

    def _write_other(self, protocol: str, address_at: int, port_at: int) -> bytes:
        """Writes the other's endpoint into the packet, and corrects the checksums."""
        header = Checksum(10 if self._family == 4 else None, pseudo_header=True)
        port = Checksum(_PORT_CHECKSUMS[protocol])
        address = write_payload(NETWORK_HEADER, address_at, self._size, self._other, header)
        return address + write_payload(TRANSPORT_HEADER, port_at, 2, self._other_port, port)

    def _has_checksum(self, kind: str, protocol: str) -> bytes:
        """A datagram that is to be rewritten has a checksum: 0 means none and must stay so (RFC 768)."""
        loaded = load_payload(TRANSPORT_HEADER, 4, 4, self._mark)
        if kind == DIRECT or protocol == "tcp":
            return loaded  # for nft, see above
        return loaded + mask_bytes(self._mark, _CHECKSUM) + compare(self._mark, bytes(4), equal=False)
