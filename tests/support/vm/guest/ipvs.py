"""Runs in the gateway: IPVS by netlink, with the services that are told as JSON on standard input.

{"vip", "port", "scheduler": "rr", "forward": "nat" | "dr", "backends": [{"address", "port", "weight"}]};
`null` takes all of it away. The kernel answers for the address, so it is added to lo, as l4lb does.
"""

import json
import subprocess
import sys
from socket import IPPROTO_TCP

from pyroute2 import IPVS, IPVSDest, IPVSService
from pyroute2.netlink.exceptions import NetlinkError

FORWARDS = {"nat": 0, "tunnel": 2, "dr": 3}
wish = json.load(sys.stdin)
with IPVS() as ipvs:
    for message in ipvs.service("dump"):
        ipvs.service("del", service=IPVSService.from_message(message))
    if wish is None:
        subprocess.run(["ip", "addr", "flush", "dev", "lo", "to", "203.0.113.0/24"], check=True)
        sys.exit()
    subprocess.run(["ip", "addr", "replace", f"{wish['vip']}/32", "dev", "lo"], check=True)
    subprocess.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.vs.conntrack=0"], check=True)
    service = IPVSService(
        addr=wish["vip"], port=wish["port"], protocol=IPPROTO_TCP, sched_name=wish["scheduler"]
    )
    ipvs.service("add", service=service)
    for backend in wish["backends"]:
        dest = IPVSDest(
            addr=backend["address"],
            port=backend["port"],
            weight=backend["weight"],
            fwd_method=FORWARDS[wish["forward"]],
        )
        try:
            ipvs.dest("add", service=service, dest=dest)
        except NetlinkError as error:
            sys.exit(f"{backend}: {error}")
