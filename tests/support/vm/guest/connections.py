"""Runs in the client: opens and closes connections as a script says, and prints who answered each.

The script stands on standard input, one event a line: `+ N` opens connection N and asks who is there, `- N`
closes it, `? N` asks again over it. The answer to each `+` and `?` is a line: `N NAME`, or `N failed`.
"""

import http.client
import sys

vip = sys.argv[1]
connections: dict[str, http.client.HTTPConnection] = {}


def ask(number: str) -> str:
    try:
        connections[number].request("GET", "/")
        return connections[number].getresponse().read().decode().strip()
    except OSError:
        return "failed"


for line in sys.stdin:
    what, number = line.split()
    if what == "-":
        connections.pop(number).close()
        continue
    if what == "+":
        connections[number] = http.client.HTTPConnection(vip, 80, timeout=20)
    print(number, ask(number), flush=True)
