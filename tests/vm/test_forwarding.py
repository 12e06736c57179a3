"""The main job on real kernels: NAT, direct return, tunnels with the kernel's own decapsulation."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.vm.lab import VmLab
from tests.support.vm.machines import PROJECT

COUNTING = """
table inet vmtest {
    counter answers { }
    chain forward {
        type filter hook forward priority 300
        iifname "eth2" oifname "eth1" counter name answers
    }
}
"""


def answers_through_gateway(lab: VmLab) -> int:
    """Packets from the backends' network that the gateway has forwarded to the clients'."""
    shown = lab.gateway.run("nft -j list counter inet vmtest answers")
    return int(json.loads(shown)["nftables"][1]["counter"]["packets"])


@pytest.fixture
def counting(lab: VmLab) -> Iterator[None]:
    with lab.rules([lab.gateway], "inet vmtest", COUNTING):
        yield


def test_the_kernel_queues_by_nft_itself(lab: VmLab) -> None:
    lab.through_gateway()
    lab.balance("nat")
    assert "queue flags bypass to" in lab.gateway.run("nft list table inet l4lb")
    assert lab.l4lb("doctor")["datapaths"][0] == "offload"


@pytest.mark.parametrize("datapath", ["auto", "rewrite", "mark"])
def test_nat(lab: VmLab, counting: None, datapath: str) -> None:
    lab.through_gateway()
    lab.balance("nat", datapath=datapath)
    before = answers_through_gateway(lab)
    assert lab.ask(10) == {"web1": 5, "web2": 5}
    assert lab.ask_udp(10) == {"web1": 5, "web2": 5}
    assert lab.same_file()
    assert answers_through_gateway(lab) > before
    assert lab.status()["datapath"] == datapath.replace("auto", "offload")


@pytest.mark.parametrize("datapath", ["mark", "auto"])
def test_direct_return(lab: VmLab, counting: None, datapath: str) -> None:
    lab.past_gateway("dsr")
    lab.balance("dsr", datapath=datapath)
    before = answers_through_gateway(lab)
    assert lab.ask(10) == {"web1": 5, "web2": 5}
    assert lab.ask_udp(10) == {"web1": 5, "web2": 5}
    assert lab.same_file()
    assert answers_through_gateway(lab) == before


@pytest.mark.parametrize("forward", ["ipip", "gue"])
def test_tunnels_are_decapsulated_by_the_backends_kernels(lab: VmLab, forward: str) -> None:
    lab.past_gateway(forward)
    lab.balance(dsr_with(forward))
    assert lab.ask(10) == {"web1": 5, "web2": 5}
    assert lab.ask_udp(10) == {"web1": 5, "web2": 5}
    assert lab.same_file()


def dsr_with(forward: str) -> str:
    """The configuration for direct return, by a tunnel."""
    return (PROJECT / "config" / "dsr.yaml").read_text().replace("forward: dsr", f"forward: {forward}")
