"""IPVS as oracle: the same packets give the same states and the same time-outs. docs/ipvs.md has the
differences."""

from __future__ import annotations

import pytest

from tests.support.vm.lab import VmLab
from tests.support.vm.segments import BACKEND, Look, Seen, of_ipvs, of_ours, segments
from tests.support.vm.traffic import balanced, ipvs

OPENED = "c:S b:SA c:A"
ALIKE = {
    "opened": OPENED,
    "open and used": f"{OPENED} c:PA b:A b:PA c:A",
    "closed by the client": f"{OPENED} c:FA b:A b:FA c:A",
    "closed by the client at once": f"{OPENED} c:FA b:FA c:A",
    "closed by the backend": f"{OPENED} b:FA c:A c:FA b:A",
    "half closed by the client, which goes on receiving": f"{OPENED} c:FA b:PA c:A b:PA c:A",
    "reset by the client": f"{OPENED} c:R",
    "reset by the backend": f"{OPENED} b:R",
    "reset while it closes": f"{OPENED} c:FA c:R",
    "refused": "c:S b:RA",
    "no answer, asked again": "c:S c:S c:S",
    "reset before it was open": "c:S c:R",
    "given up before it was open": "c:S c:FA",
    "begins with a reset": "c:R",
    "the port again, after both have closed": f"{OPENED} c:FA b:FA c:A c:S b:SA c:A",
    "the port again, after a reset": f"{OPENED} c:R c:S",
    "SYN on an open connection": f"{OPENED} c:S",
}
"""By both ends' packets."""

DIFFERENT = {
    "begins with an acknowledgment": "c:A c:A",
    "begins with an end": "c:FA",
    "begins with an answer": "c:SA",
}
"""What has not begun with a SYN alone: names of `IPVS_ON_DIFFERENT` and `OURS_ON_DIFFERENT`."""


def seen(*rows: tuple[str, int] | None) -> list[Seen | None]:
    return [Seen(*row) if row else None for row in rows]


IPVS_ON_DIFFERENT = {
    "begins with an acknowledgment": seen(None, None),
    "begins with an end": seen(None),
    "begins with an answer": seen(("SYN_RECV", 60)),
}
OURS_ON_DIFFERENT = {
    "begins with an acknowledgment": seen(("SYN_RECV", 60), ("ESTABLISHED", 900)),
    "begins with an end": seen(("CLOSE", 10)),
    "begins with an answer": seen(None),
}

Story = dict[str, list[Seen | None]]
WAYS = {"nat": ("nat", "rewrite", ":8080"), "dsr": ("dr", "auto", "")}
"""Our `forward`, and what stands for it there: IPVS's word, our datapath, the backend's port in our file."""


def played(lab: VmLab, forward: str, look: Look) -> Story:
    """What is seen of all sequences. Where answers go past the gateway they do not come here, either."""
    with segments(lab) as packets:
        return packets.play(ALIKE | DIFFERENT, look, both_ways=forward == "nat")


@pytest.fixture(scope="module")
def theirs(lab: VmLab) -> dict[str, Story]:
    """What IPVS makes of them, by our `forward`."""
    lab.through_gateway()
    found = {}
    with ipvs(lab) as peer:
        for forward, (word, _, port) in WAYS.items():
            peer.serve("rr", {BACKEND: 1}, forward=word, port=int(port[1:] or 80))
            found[forward] = played(lab, forward, of_ipvs)
    return found


@pytest.mark.parametrize("forward", WAYS)
def test_states_and_time_outs_are_those_of_ipvs(lab: VmLab, theirs: dict[str, Story], forward: str) -> None:
    _, datapath, port = WAYS[forward]
    lab.balance(balanced("round-robin", {BACKEND: 1}, forward=forward, port=port), datapath=datapath)
    ours = played(lab, forward, of_ours)
    assert {name: ours[name] for name in ALIKE} == {name: theirs[forward][name] for name in ALIKE}
    assert {name: theirs[forward][name] for name in DIFFERENT} == IPVS_ON_DIFFERENT
    assert {name: ours[name] for name in DIFFERENT} == OURS_ON_DIFFERENT
