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

That is the shape `through-gateway`; others are chosen with `Lab(shape=…)`:

* `past-gateway`, for direct return and tunnels: the client has a second leg on the bridge, eth1 10.2.0.2 and
  2001:db8:2::2, and is the backends' default route. VIPs it reaches through the gateway still.
* `one-armed`: the client stands on the bridge alone, eth0 10.2.0.2 and 2001:db8:2::2, and the gateway has
  only lan0. VIPs are routed by 10.2.0.1, in and out of one interface: redirects would give backends away.
* `own-router`, for masquerade: the backends have no route but their segment. `peer` 10.2.0.3, 2001:db8:2::3
  is a client there that routes VIPs by 10.2.0.1.

`Lab(small_mtu=…)` puts two routers with a link of 1400 bytes between them before the gateway (`client`),
behind it (`backends`), or `both`. All other links have 1500, so that only ICMP tells who sends too much:

    client ──── hop1 ── 1400 ── hop2 ──── gateway ──── hop3 ── 1400 ── hop4 ──── lan
        10.1.0.0    10.5.0.0        10.6.0.0   10.3.0.0    10.4.0.0        10.2.0.0

* The gateway has .1 of its networks: with `client` its wan0 is 10.6.0.1, with `backends` its lan0 10.3.0.1,
  and hop4 has 10.2.0.1. IPv6 likewise, 2001:db8:N::1. Clients and backends keep their addresses.
* The routers' default route leads to the gateway, so that their ICMP finds any address of a tunnel's outside.
* Goes with `through-gateway` and `past-gateway`, and `client` with `own-router`.

In every shape:

* The client reaches 203.0.113.0/24 and 2001:db8:f::/64 (virtual addresses) and the backends' networks
  through the gateway, which forwards; the backends' default route is the gateway, unless the shape says else.
* Reverse path filters are off; routers send ICMP redirects and hosts follow them, as the kernel has it.
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
from tests.support.lab.topology import LAST_BACKEND, SHAPES, SMALL_MTUS, VIP4, VIP6
from tests.support.lab.wait import wait_for

__all__ = [
    "LAST_BACKEND",
    "ROOT",
    "SHAPES",
    "SMALL_MTUS",
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
