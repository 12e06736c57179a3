"""A small network in namespaces: a client, the gateway that balances, and backends behind it.

                                                     ┌── b1  10.2.0.11  2001:db8:2::11
    client ───────────────── gateway ─────── lan ────┼── b2  10.2.0.12  2001:db8:2::12
    10.1.0.2            10.1.0.1   10.2.0.1  (bridge)└── b3  …
    2001:db8:1::2  2001:db8:1::1   2001:db8:2::1

    with Lab(backends=3) as lab:
        server = lab.host("b1").popen([sys.executable, "-m", "tests.support.http_server", "--name", "b1"])
        lab.host("b1").wait_listening(8080)
        lab.client.run(["curl", "-sS", "http://10.2.0.11:8080/"])
        with lab.gateway.enter():
            ...  # sockets made by this thread are the gateway's

* The client reaches 203.0.113.0/24 and 2001:db8:f::/64 (virtual addresses) and the backends' networks
  through the gateway, which forwards; the backends' default route is the gateway.
* The bridge has a namespace of its own, so that the gateway's rules never see bridged packets.
* Every link is made straight between two namespaces: nothing appears on the host, and labs with
  different prefixes can stand beside each other.
* A lab is found again by its prefix alone: `down` in another process removes all of it, with the
  processes that still run inside, even when the one that made it was killed.
"""

from tests.support.lab.errors import LabError, unavailable
from tests.support.lab.host import Host
from tests.support.lab.lab import Lab, existing_labs, unique_prefix
from tests.support.lab.process import ROOT, Process
from tests.support.lab.topology import LAST_BACKEND, VIP4, VIP6
from tests.support.lab.wait import wait_for

__all__ = [
    "LAST_BACKEND",
    "ROOT",
    "VIP4",
    "VIP6",
    "Host",
    "Lab",
    "LabError",
    "Process",
    "existing_labs",
    "unavailable",
    "unique_prefix",
    "wait_for",
]
