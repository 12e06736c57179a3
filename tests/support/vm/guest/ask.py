"""Runs in the client: who answers HTTP requests, each on a connection of its own.

Usage: ask.py COUNT ADDRESS PORT AT_ONCE. Prints a line `NAME COUNT` for each backend, and for `failed`. A
process for each request, as of curl, would be most of the work."""

import collections
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

count, address, port, at_once = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])


def ask(_: int) -> str:
    try:
        with socket.create_connection((address, port), timeout=60) as asking:
            asking.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: asking.recv(4096), b""))
    except OSError:
        return "failed"
    head, body = answer.split(b"\r\n\r\n", 1)
    return body.decode().strip() if head.startswith(b"HTTP/1.1 200 ") else "failed"


with ThreadPoolExecutor(at_once) as pool:
    for name, number in collections.Counter(pool.map(ask, range(count))).items():
        print(name, number)
