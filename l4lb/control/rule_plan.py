"""What the rules depend on besides the table, and which chain queues for whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ICMP_QUEUE_CHAIN = "queue_icmp"


@dataclass(frozen=True, slots=True)
class RulePlan:
    """What the rules depend on besides the table; it stays as it is while the daemon runs.

    `marks` is true for the datapaths `mark` and `offload`. Worker n reads queue `first_queue + n`, and
    whole packets from queue `first_queue + workers + n`; the queue behind them is that of ICMP errors.
    `native_queue` says whether the kernel's nftables can queue; otherwise the queue chains are left empty
    here and `l4lb.net.nft.add_queue_rules` fills them by way of xtables' NFQUEUE target. Worker n owns the
    masquerade ports `masquerade_ports[n]` (first, last). `learned_size` bounds the flows that the kernel
    remembers. `defragments` says that the kernel can be made to put fragments together.
    With `fast_path` learned flows skip the IP stack, and what is to be learned leaves it
    with its mark.
    """

    marks: bool
    workers: int
    first_queue: int
    seed: int
    native_queue: bool
    masquerade_ports: Sequence[tuple[int, int]] = ()
    learned_size: int = 65536
    defragments: bool = True
    fast_path: bool = False

    def queues(self) -> dict[str, int]:
        """The number of the queue that each chain sends its packets to."""
        first, n = self.first_queue, self.workers
        return {
            **{queue_chain(worker): first + worker for worker in range(n)},
            **{whole_chain(worker): first + n + worker for worker in range(n)},
            ICMP_QUEUE_CHAIN: first + 2 * n,
        }


def queue_chain(worker: int) -> str:
    """The chain that queues for `worker`."""
    return f"queue_{worker}"


def whole_chain(worker: int) -> str:
    """The chain that queues whole packets for `worker`."""
    return f"whole_{worker}"
