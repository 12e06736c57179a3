"""Sends one datagram out of the device `outer` and prints the devices at which the sniffer sees it.

Words: the frame's destination, the datagram's port, and the tag of a VLAN or 0. A second datagram, to port
99, says that the first has been seen or will not be.
"""

from __future__ import annotations

import socket
import sys
from ipaddress import ip_address

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

from l4lb.net.sniffer import Sniffer

VIP = "203.0.113.10"
LAST = 99


def main(to: str, port: int, tag: int) -> None:
    sniffer = Sniffer([ip_address(VIP)], None, snap=128, rate=100)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("outer", 0))
        raw.send(bytes(_frame(to, port, tag)))
        raw.send(bytes(_frame(to, LAST, 0)))
    while packets := list(sniffer.read(10, 5)):
        for packet in packets:
            if IP(packet.data).dport == LAST:
                return
            print(packet.interface)
    sys.exit("the last datagram was not seen")


def _frame(to: str, port: int, tag: int) -> Packet:
    link = Ether(dst=to, src="02:00:00:00:00:01")
    link = link / Dot1Q(vlan=tag) if tag else link
    return link / IP(src="198.51.100.7", dst=VIP) / UDP(dport=port) / b"ping"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
