"""Traffic for as long as something else takes, of which nothing may fail."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.gateway import VIP4
from tests.support.lab import Lab
from tests.support.lab.process import Process
from tests.support.wrk import faultless

_LONGEST_S = 120
_END_TIMEOUT_S = 20.0


@contextmanager
def requesting(lab: Lab) -> Iterator[Process]:
    """Requests on 16 connections that stay open. Afterwards: none of them failed."""
    wrk = lab.client.popen(["wrk", "-t1", "-c16", f"-d{_LONGEST_S}s", "--timeout", "10s", f"http://{VIP4}/"])
    try:
        yield wrk
        wrk.check_running()
    finally:
        wrk.stop(signal.SIGINT, _END_TIMEOUT_S)
    faultless(wrk.output())


@contextmanager
def transferring(lab: Lab, port: int, *, rate: str = "100M", pauses: bool = False) -> Iterator[Process]:
    """A transfer at `rate` bits a second through the VIP. Afterwards: it did not break, and every second
    brought bytes unless packets may be kept waiting (`pauses`)."""
    servers = [host.popen(["iperf3", "-s", "-p", str(port)]) for host in lab.backends]
    for host in lab.backends:
        host.wait_listening(port)
    words = ["-c", VIP4, "-p", str(port), "-t", str(_LONGEST_S), "-b", rate, "-J"]
    transfer = lab.client.popen(["iperf3", *words])
    try:
        yield transfer
        transfer.check_running()
    finally:
        transfer.stop(signal.SIGINT, _END_TIMEOUT_S)
        for server in servers:
            server.stop()
    answer = json.loads(transfer.output())
    assert answer["end"]["sum_sent"]["bytes"] > 1_000_000
    *whole, _ = answer["intervals"]
    assert pauses or all(interval["sum"]["bytes"] > 0 for interval in whole), answer
