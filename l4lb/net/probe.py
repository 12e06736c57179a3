"""Finds out what the host's kernel can do, without changing anything.

nftables features are put to the kernel in transactions that it checks and undoes. The answers choose
the datapath (`auto`) and the way to queue, and are what `l4lb doctor` prints.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from l4lb.errors import CapabilityError, L4lbError
from l4lb.model import Datapath
from l4lb.net import nft, queue
from l4lb.net.privilege import has_net_admin

_PROBE_QUEUE = 65535


@dataclass(frozen=True, slots=True)
class Feature:
    """One ability of the host: what it is for, and what is done where it is missing."""

    name: str
    present: bool
    purpose: str
    instead: str


@dataclass(frozen=True, slots=True)
class Host:
    """What was found. Build it with `probe_host`."""

    features: tuple[Feature, ...]
    kernel: str

    def has(self, name: str) -> bool:
        """Whether the feature of that name is present."""
        return any(feature.present for feature in self.features if feature.name == name)

    @property
    def can_queue(self) -> bool:
        """Whether packets can be brought to user space at all."""
        return self.has("nfqueue") and (self.has("nft-queue") or self.has("xt-nfqueue"))

    def datapaths(self) -> list[Datapath]:
        """The datapaths that work here, the best first."""
        if not (self.has("net-admin") and self.has("nft") and self.has("nft-inet") and self.can_queue):
            return []
        found = [Datapath.REWRITE, Datapath.REFERENCE]
        if self.has("nft-rewrite"):
            found.insert(0, Datapath.MARK)
            if self.has("nft-learn"):
                found.insert(0, Datapath.OFFLOAD)
        return found


def choose_datapath(host: Host, wanted: Datapath) -> Datapath:
    """The datapath to use. CapabilityError names what is missing for the one that is wanted."""
    usable = host.datapaths()
    if wanted is Datapath.AUTO and usable:
        return usable[0]
    if wanted in usable:
        return wanted
    missing = ", ".join(f.name for f in host.features if not f.present)
    raise CapabilityError(
        f"datapath {wanted}: cannot work on this host, missing: {missing}; `l4lb doctor` explains each"
    )


def probe_host() -> Host:
    """Probes every feature. Takes some tens of milliseconds."""
    admin = has_net_admin()
    program = shutil.which("nft") is not None

    def kernel_takes(script: str) -> bool:
        if not admin or not program:
            return False
        try:
            nft.run_nft(script, check=True)
        except L4lbError:
            return False
        return True

    base = "add table inet l4lb_probe\nadd chain inet l4lb_probe c\n"
    rule = base + "add rule inet l4lb_probe c "
    hook = "add chain inet l4lb_probe {0} {{ type filter hook {0} priority -300; }}\n"
    return Host(
        features=(
            Feature("net-admin", admin, "install rules, bind queues, add VIPs", "nothing: run as root"),
            Feature("nft", program, "the program that installs rules", "nothing: apt install nftables"),
            Feature(
                "nft-inet",
                kernel_takes(base + hook.format("prerouting") + hook.format("postrouting")),
                "hooks for IPv4 and IPv6 in one table",
                "nothing: CONFIG_NF_TABLES_INET is needed",
            ),
            Feature(
                "nfqueue",
                _try(_bind_queue),
                "packets to user space",
                "nothing: CONFIG_NETFILTER_NETLINK_QUEUE",
            ),
            Feature("nft-queue", kernel_takes(rule + "queue num 0"), "queue from nftables", "xt-nfqueue"),
            Feature(
                "xt-nfqueue",
                admin and nft.can_queue_by_xtables(),
                "queue by xtables' target, inside our nftables table",
                "nft-queue",
            ),
            Feature(
                "nft-rewrite",
                kernel_takes(
                    base
                    + "add map inet l4lb_probe m { type mark : ipv4_addr; }\n"
                    + "add rule inet l4lb_probe c ip daddr set meta mark & 0xff map @m\n"
                    + "add rule inet l4lb_probe c tcp dport set 80\n"
                ),
                "the kernel rewrites headers (datapath mark)",
                "datapath rewrite",
            ),
            Feature(
                "nft-learn",
                kernel_takes(
                    base
                    + "add map inet l4lb_probe k { type ipv4_addr : mark; flags dynamic; timeout 60s; }\n"
                    + "add map inet l4lb_probe m { type mark : ipv4_addr; counter; }\n"
                    + "add rule inet l4lb_probe c update @k { ip saddr : meta mark }\n"
                    + "add rule inet l4lb_probe c delete @k { ip saddr : meta mark }\n"
                ),
                "established flows stay in the kernel (datapath offload)",
                "datapath mark",
            ),
            Feature(
                "nft-netdev",
                kernel_takes(
                    "add table netdev l4lb_probe\n"
                    + "add chain netdev l4lb_probe i { type filter hook ingress device lo priority 0; }\n"
                    + "add chain netdev l4lb_probe o { type filter hook egress device lo priority 0; }\n"
                    + "add map netdev l4lb_probe m { typeof meta mark : @ll,0,128; }\n"
                    + "add rule netdev l4lb_probe i fwd to lo\n"
                ),
                "learned flows skip the IP stack",
                "they are forwarded by it",
            ),
            Feature(
                "nft-defrag",
                kernel_takes(rule + "meta l4proto udp tproxy ip to :1"),
                "fragments are put together before they are balanced",
                "fragments to a VIP are dropped",
            ),
            Feature(
                "nft-hash",
                kernel_takes(
                    rule + "jhash ip saddr . th sport mod 2 seed 0x1 vmap { 0 : accept, 1 : accept }"
                ),
                "several workers, each with its flows",
                "one worker",
            ),
            Feature(
                "nft-notrack",
                kernel_takes(
                    base + hook.format("prerouting") + "add rule inet l4lb_probe prerouting notrack"
                ),
                "balanced flows take no connection tracking entries",
                "nothing: CONFIG_NFT_CT is needed",
            ),
        ),
        kernel=platform.release(),
    )


def _try(action: Callable[[], None]) -> bool:
    try:
        action()
    except (CapabilityError, OSError):
        return False
    except L4lbError:
        return True  # the queue number is taken: so there are queues
    return True


def _bind_queue() -> None:
    queue.open_queue(_PROBE_QUEUE, length=64, copy_range=0, fail_open=False).close()
