"""Runs in the client: sends TCP segments and datagrams between addresses that nobody has, so that no kernel
joins in.

Usage: segments.py INTERFACE=GATEWAYS_MAC… Each line of standard input is one packet,
`INTERFACE SOURCE PORT DESTINATION PORT FLAGS` with FLAGS of the letters FSRPA, or `UDP`; it is sent as it
stands, and the answer is the line `sent`.
"""

import socket
import struct
import sys

FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16}
IPV4 = 0x0800

gateways = dict(word.split("=") for word in sys.argv[1:])
wires = {}
for interface in gateways:
    wires[interface] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wires[interface].bind((interface, IPV4))


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def transport(ends: bytes, source_port: int, port: int, flags: str) -> tuple[int, bytes]:
    """The protocol and the segment with its checksum; `ends` is source and destination."""
    if flags == "UDP":
        return socket.IPPROTO_UDP, struct.pack("!HHHH4s", source_port, port, 12, 0, b"lab\n")
    bits = sum(FLAGS[letter] for letter in flags)
    segment = struct.pack("!HHIIBBHHH", source_port, port, 1000, 1000, 5 << 4, bits, 64000, 0, 0)
    found = checksum(ends + struct.pack("!HH", socket.IPPROTO_TCP, len(segment)) + segment)
    return socket.IPPROTO_TCP, segment[:16] + struct.pack("!H", found) + segment[18:]


for line in sys.stdin:
    interface, source, source_port, destination, port, flags = line.split()
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    protocol, segment = transport(ends, int(source_port), int(port), flags)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, protocol, 0) + ends
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    wire = wires[interface]
    link = bytes.fromhex(gateways[interface].replace(":", "")) + wire.getsockname()[4]
    wire.send(link + struct.pack("!H", IPV4) + header + segment)
    print("sent", flush=True)
