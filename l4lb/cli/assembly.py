"""What a run of the daemon is put together from, before anything is started."""

from __future__ import annotations

import os

from l4lb.control.design import Designer
from l4lb.control.pool import AddressPool, divide_ports
from l4lb.control.rule_plan import RulePlan
from l4lb.control.rule_words import learning_chains
from l4lb.control.rules import FAMILIES
from l4lb.errors import CapabilityError
from l4lb.model import Datapath, L4Config, OnFailure
from l4lb.net.machine import machine_key as net_machine_key
from l4lb.net.nft import LearningRule
from l4lb.net.probe import Host
from l4lb.net.userscheduler import Schedulers


def make_designer(
    config: L4Config, datapath: Datapath, host: Host, key: bytes, schedulers: Schedulers
) -> Designer:
    """What is fixed for the life of a daemon with this configuration on this host."""
    workers = config.workers or len(os.sched_getaffinity(0))
    if not host.has("nft-hash"):
        workers = 1
        if any(service.on_failure is OnFailure.HASH for service in config.services):
            raise CapabilityError("on_failure: hash: this kernel's nftables cannot hash (CONFIG_NFT_HASH)")
    if datapath is Datapath.REFERENCE:
        workers = 1
    plan = RulePlan(
        marks=datapath in (Datapath.MARK, Datapath.OFFLOAD),
        workers=workers,
        first_queue=config.queue.first,
        seed=int.from_bytes(key[:4], "big") or 1,
        native_queue=host.has("nft-queue"),
        masquerade_ports=divide_ports(config.masquerade.first_port, config.masquerade.last_port, workers),
        learned_size=config.flows.capacity,
        defragments=host.has("nft-defrag"),
        fast_path=datapath is Datapath.OFFLOAD and host.has("nft-netdev"),
    )
    pool = AddressPool(config.masquerade.addresses)
    return Designer(key, datapath, plan, pool, custom=schedulers.of)


def learning_rules() -> list[LearningRule]:
    """The rules that nft cannot write, for `l4lb.net.nft.add_learning_rules`."""
    return [
        LearningRule(chain, f"learned{family}", family, forget)
        for family in FAMILIES
        for chain, forget in zip(learning_chains(family), (False, True), strict=True)
    ]


def machine_key() -> bytes:
    """A key of this machine's own, for hashing."""
    otherwise = "hashing by a random key, so a restart reshuffles flows; set l4.hash_key"
    return net_machine_key(b"l4lb key", otherwise)
