"""Runs in the client: opens and closes connections as a script says, and prints who answered each.

The script stands on standard input, one event a line: `+ N` opens connection N and asks who is there, `- N`
ends the client's half of it, `? N` asks again over it. The answer to each `+` and `?` is a line: `N NAME`, or
`N failed`. `.` is answered by `. ended` when the other halves have ended, too, or could not within a second.
"""

import http.client
import socket
import sys
import time

vip = sys.argv[1]
connections: dict[str, http.client.HTTPConnection] = {}
ending: list[socket.socket] = []


def ask(number: str) -> str:
    try:
        connections[number].request("GET", "/")
        return connections[number].getresponse().read().decode().strip()
    except OSError:
        return "failed"


def end(number: str) -> None:
    wire = connections.pop(number).sock
    if wire is None:  # it never was open
        return
    try:
        wire.shutdown(socket.SHUT_WR)
    except OSError:  # the other end has reset it
        wire.close()
    else:
        ending.append(wire)


def await_ends() -> None:
    until_s = time.monotonic() + 1
    while ending:
        with ending.pop() as wire:
            wire.settimeout(max(0.01, until_s - time.monotonic()))
            try:
                while wire.recv(4096):
                    pass
            except OSError:
                pass


for line in sys.stdin:
    what, _, number = line.strip().partition(" ")
    if what == ".":
        await_ends()
        print(". ended", flush=True)
        continue
    if what == "-":
        end(number)
        continue
    if what == "+":
        connections[number] = http.client.HTTPConnection(vip, 80, timeout=20)
    print(number, ask(number), flush=True)
