"""Runs in the gateway: IPVS by netlink. Each line of standard input is a wish as JSON, which is what IPVS
then has; the answer is the line `done`.

{"vip", "port", "protocols": ["tcp", "udp"], "scheduler": "rr", "forward": "nat" | "dr", "anew",
 "backends": [{"address", "port", "weight"}]}.
Not `anew`, a service keeps its connections: backends are changed, added and removed one by one, as keepalived
does it. `null` takes all of it away. The kernel answers for the address, so it is added to lo, as l4lb does.
"""

import json
import subprocess
import sys
from socket import IPPROTO_TCP, IPPROTO_UDP
from typing import Any

from pyroute2 import IPVS, IPVSDest, IPVSService

PROTOCOLS = {"tcp": IPPROTO_TCP, "udp": IPPROTO_UDP}
FORWARDS = {"nat": 0, "dr": 3}
Destinations = dict[tuple[str, int], IPVSDest]


def clear(ipvs: IPVS) -> None:
    for message in ipvs.service("dump"):
        ipvs.service("del", service=IPVSService.from_message(message))
    subprocess.run(["ip", "addr", "flush", "dev", "lo", "to", "203.0.113.0/24"], check=True)


def create(ipvs: IPVS, wish: dict[str, Any]) -> list[IPVSService]:
    subprocess.run(["ip", "addr", "replace", f"{wish['vip']}/32", "dev", "lo"], check=True)
    made = [
        IPVSService(
            addr=wish["vip"], port=wish["port"], protocol=PROTOCOLS[name], sched_name=wish["scheduler"]
        )
        for name in wish["protocols"]
    ]
    for service in made:
        ipvs.service("add", service=service)
    return made


def change(ipvs: IPVS, service: IPVSService, known: Destinations, wish: dict[str, Any]) -> Destinations:
    wanted = {
        (backend["address"], backend["port"]): IPVSDest(
            addr=backend["address"],
            port=backend["port"],
            weight=backend["weight"],
            fwd_method=FORWARDS[wish["forward"]],
        )
        for backend in wish["backends"]
    }
    for where, dest in known.items():
        if where not in wanted:
            ipvs.dest("del", service=service, dest=dest)
    for where, dest in wanted.items():
        # pyroute2's "update" deletes.
        ipvs.dest("set" if where in known else "add", service=service, dest=dest)
    return wanted


with IPVS() as ipvs:
    services: list[IPVSService] = []
    destinations: list[Destinations] = []
    for line in sys.stdin:
        wish = json.loads(line)
        if wish is None or wish["anew"]:
            clear(ipvs)
            services, destinations = [], []
        if wish is not None:
            if not services:
                services = create(ipvs, wish)
                destinations = [{} for _ in services]
            pairs = zip(services, destinations, strict=True)
            destinations = [change(ipvs, service, known, wish) for service, known in pairs]
        print("done", flush=True)
