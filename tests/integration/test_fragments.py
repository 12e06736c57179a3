"""Fragments: the kernel puts them together before they are balanced, in whatever order they come."""

from __future__ import annotations

import random
import socket

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.packet import Raw

from tests.integration.gateway import VIP4, VIP6, ask, balancing, serving
from tests.support.lab import Lab

pytestmark = pytest.mark.root
CONFIG = """
l4:
  datapath: {datapath}
  services:
    - name: echo
      listen: 203.0.113.10:7/udp
      scheduler: round-robin
      backends: [10.2.0.11:7, 10.2.0.12:7, 10.2.0.13:7]
    - name: echo6
      listen: "[2001:db8:f::10]:7/udp"
      scheduler: round-robin
      backends: ["[2001:db8:2::11]:7", "[2001:db8:2::12]:7", "[2001:db8:2::13]:7"]
"""
SIZE = 6000


@pytest.fixture(scope="module", params=["offload", "mark", "rewrite"])
def running(request, lab: Lab):
    with serving(lab, http=()), balancing(lab, CONFIG.format(datapath=request.param)) as running:
        yield running


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_a_datagram_larger_than_the_mtu_goes_there_and_back(lab, running, vip):
    payload = random.Random(1).randbytes(SIZE)
    before = running.status()["reassembly"]["reassembled"]
    assert {ask(lab, vip, payload=payload) for _ in range(12)} == {"b1", "b2", "b3"}
    status = running.status()
    if vip == VIP4:  # the kernel's netfilter counts only the failures of IPv6
        assert status["reassembly"]["reassembled"] >= before + 12
    assert status["fragments"] == status["reasons"]["fragment"] == 0


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_fragments_out_of_order_reach_one_backend(lab, running, vip):
    assert send_fragments(lab, vip, lambda pieces: [pieces[-1], *pieces[1:-1], pieces[0]]) == 1


def test_fragments_that_overlap_or_never_end_reach_nobody(lab, running):
    before = running.status()["reassembly"]["failed"]

    def overlapping(pieces: list) -> list:
        again = pieces[1].copy()
        again.frag -= 1  # eight bytes of the piece before, written anew
        return [pieces[0], again, *pieces[1:]]

    assert send_fragments(lab, VIP4, overlapping) == 0
    assert send_fragments(lab, VIP4, lambda pieces: pieces[:-1]) == 0
    assert running.status()["reassembly"]["failed"] > before


def send_fragments(lab: Lab, vip: str, arrange) -> int:
    """Sends a datagram in fragments arranged so; returns how many answers come."""
    family = socket.AF_INET6 if ":" in vip else socket.AF_INET
    with lab.client.enter(), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        sock.bind(("::" if ":" in vip else "", 0))
        port = sock.getsockname()[1]
        payload = Raw(random.Random(2).randbytes(SIZE))
        if ":" in vip:
            whole = IPv6(src="2001:db8:1::2", dst=vip) / IPv6ExtHdrFragment(id=7) / UDP(sport=port, dport=7)
            pieces = fragment6(whole / payload, 1280)
        else:
            whole = IP(src="10.1.0.2", dst=vip, id=random.randrange(1, 65536)) / UDP(sport=port, dport=7)
            pieces = fragment(whole / payload, 1200)
        with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            for piece in arrange([type(p)(bytes(p)) for p in pieces]):
                if ":" not in vip:
                    del piece.chksum
                raw.sendto(bytes(piece), (vip, 0))
        answers = 0
        try:
            while True:
                sock.recv(65536)
                answers += 1
        except TimeoutError:
            return answers
