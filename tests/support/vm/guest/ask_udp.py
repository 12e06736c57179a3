"""Runs in the client: who answers datagrams, each from a port of its own. Usage: ask_udp.py COUNT ADDRESS

A datagram that is lost is sent again, twice. Prints a line `NAME COUNT` for each backend, and for `lost`."""

import collections
import socket
import sys

seen: collections.Counter[str] = collections.Counter()
for number in range(int(sys.argv[1])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(5)
        asking.connect((sys.argv[2], 7))
        for _ in range(3):
            asking.send(b"%d" % number)
            try:
                seen[asking.recv(2000).split()[0].decode()] += 1
                break
            except TimeoutError:
                seen["lost"] += 1
for name, count in seen.items():
    print(name, count)
