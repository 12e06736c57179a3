"""Time-outs and rates: those of `defaults` hold where a route says nothing else."""

from __future__ import annotations

from l7.config.parse import parse_config
from l7.model import Timeouts

TEXT = """
l7:
  listeners: [{listen: 127.0.0.1:80}]
  defaults: {timeouts: {body: 5s, body_rate: 1KiB, read_rate: 100}}
  routes:
    - {name: plain, pool: web}
    - name: own
      match: {path: /own}
      timeouts: {body_rate: none, write_rate: 10KiB, total: 1m}
      pool: web
  pools: {web: {backends: [10.0.0.1:80]}}
"""


def test_a_route_replaces_what_it_names():
    plain, own = (route.timeouts for route in parse_config(TEXT, "lb.yaml").routes)
    assert plain == Timeouts(body_s=5, body_rate=1024, read_rate=100)
    assert own == Timeouts(body_s=5, body_rate=None, read_rate=100, write_rate=10240, total_s=60)
