"""Answers every datagram with this backend's name and what it was sent. Usage: echo.py NAME PORT"""

import socket
import sys

IP_PKTINFO = 8  # ip(7); Python names it from 3.14 on

name, port = sys.argv[1].encode(), int(sys.argv[2])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    # Each address its own answer: behind a virtual address, too, the answer must come from there.
    server.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    server.bind(("0.0.0.0", port))
    while True:
        data, info, _, client = server.recvmsg(65535, 64)
        # struct in_pktinfo: index, source for the answer, destination of the question
        reply = [(level, kind, bytes(4) + value[8:12] + bytes(4)) for level, kind, value in info]
        server.sendmsg([name + b" " + data], reply, 0, client)
