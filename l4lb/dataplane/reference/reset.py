"""TCP resets, for clients whose backend is down or that no backend takes (docs/design/decision.md, section
9; RFC 9293, section 3.5.2)."""

from __future__ import annotations

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from l4lb.dataplane.reference.packet import Packet
from l4lb.dataplane.reference.states import ACK, FIN, SYN

TTL = 64


def build_reset(packet: Packet) -> bytes:
    """The answer to a TCP packet without RST of a connection that nobody knows any more, or will."""
    asked = packet.transport
    tcp = TCP(sport=asked.dport, dport=asked.sport, window=0)
    if packet.flags & ACK:
        tcp.seq, tcp.ack, tcp.flags = asked.ack, 0, "R"
    else:
        length = packet.total - packet.l4 - 4 * asked.dataofs
        length += bool(packet.flags & FIN) + bool(packet.flags & SYN)
        tcp.seq, tcp.ack, tcp.flags = 0, (asked.seq + length) % (1 << 32), "RA"
    source, destination = packet.network.dst, packet.network.src
    if packet.version == 4:
        return bytes(IP(src=source, dst=destination, tos=0, id=0, flags="DF", ttl=TTL) / tcp)
    return bytes(IPv6(src=source, dst=destination, tc=0, fl=0, hlim=TTL) / tcp)
