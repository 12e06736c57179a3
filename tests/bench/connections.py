"""HTTP through the gateway: new connections a second, and requests a second on connections kept.

Client, gateway and servers share the machine's cores on every side alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.bench import peers, sides, web
from tests.bench.report import Better, Measure, Target
from tests.bench.runner import Series, Settings

ABOUT = "HTTP connections and requests a second beside DNAT, HAProxy and nginx stream"
PROGRAMS = ("haproxy", "nft", "nginx", "wrk")
DEFAULTS = Settings(runs=7, seconds=1.0)
QUICK = Settings(runs=1, seconds=0.5, quick=True)
NEEDS_LAB = True


def run(settings: Settings) -> list[Measure]:
    """New connections, then requests on kept ones: two datapaths with one worker, and the defaults."""
    peers.need_stream_module()
    every = [
        sides.dnat(web.PORT),
        sides.haproxy(web.PORT),
        sides.nginx_stream(),
        sides.balanced("mark", "mark", web.PORT, workers=1),
        sides.balanced("auto", "auto", web.PORT),
        sides.balanced("rewrite", "rewrite", web.PORT, workers=1),
    ]
    closed, kept = web.measure_sides(every, settings)
    new = (Target(1.0, of=sides.HAPROXY), Target(1.3, of=sides.STREAM))
    return [
        *_measures("new_connections_per_s", "connections/s", "more", closed["per_s"], new),
        *_measures("new_connections_errors", "errors", "less", closed["errors"], ()),
        *_measures("requests_per_s", "requests/s", "more", kept["per_s"], (Target(1.2, of=sides.HAPROXY),)),
    ]


def _measures(
    kind: str, unit: str, better: Better, found: Mapping[str, Series], targets: Sequence[Target]
) -> list[Measure]:
    others = {peer: found[peer] for peer in (sides.DNAT, sides.HAPROXY, sides.STREAM)}
    return [
        Measure(f"{kind}/{name}", unit, better, found[name], others, targets)
        for name in ("mark", "auto", "rewrite")
    ]
