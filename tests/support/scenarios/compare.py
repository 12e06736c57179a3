"""The counts of clients, servers and balancer against one another, for each backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tests.support.lab import LabError, wait_for
from tests.support.scenarios.base import Result
from tests.support.scenarios.scenario import Played

# The balancer may publish its counts a moment after the packets.
COUNTS_TIMEOUT_S = 5.0
# Workers may take turns each on their own: the shares are exact only over full turns of each.
SHARE_TOLERANCE = 0.05
# By chance a share lies further from its weight once in a million times.
DEVIATIONS = 5
SHOWN_ERRORS = 3
SUMS = ("scheduled", "packets_in", "bytes_in", "packets_out", "bytes_out", "packets_offloaded")


def take_clients(played: Played, result: Result) -> None:
    """What all clients together saw becomes the result."""
    requests, datagrams = played.of_kind("http"), played.of_kind("udp")
    result.requests, result.failed = requests.sent, requests.missing
    result.datagrams, result.lost = datagrams.sent, datagrams.missing
    for name, backend in result.backends.items():
        backend.connections = requests.flows[name]
        backend.requests = requests.answered[name]
        backend.datagrams = datagrams.answered[name]
        backend.bytes = requests.bytes[name] + datagrams.bytes[name]
    for what, tally in (("HTTP requests failed", requests), ("datagrams lost", datagrams)):
        if tally.missing:
            examples = ", ".join(tally.errors[:SHOWN_ERRORS])
            result.problems.append(f"{tally.missing} of {tally.sent} {what} ({examples})")
        strangers = set(tally.answered) - set(result.backends)
        if strangers:
            result.problems.append(f"answers came from {', '.join(sorted(strangers))}, no backend")


def compare_servers(played: Played, result: Result) -> None:
    """What the servers answered, against what the clients saw."""
    requests, datagrams = played.of_kind("http"), played.of_kind("udp")
    for name in result.backends:
        expected = {
            "connections": requests.flows[name],
            "requests": requests.answered[name],
            "bytes": requests.bytes[name],
        }
        result.check(f"{name}: HTTP seen by client and server", expected, played.web[name].counts())
        expected = {
            "datagrams": datagrams.answered[name],
            "peers": datagrams.flows[name],
            "bytes": datagrams.bytes[name],
        }
        result.check(f"{name}: UDP seen by client and server", expected, played.echo[name].counts())


def compare_balancer(played: Played, result: Result) -> None:
    """What the balancer chose, against what the clients saw; it gets a moment to publish its counts."""
    expected: Counter[tuple[str, str]] = Counter()
    for load, tally in played.tallies:
        for name in result.backends:
            expected[load.service, name] += tally.flows[name]

    def chosen() -> dict[tuple[str, str], int]:
        result.balancer = played.rows()
        return {(row["service"], played.host_of(row)): row["scheduled"] for row in result.balancer}

    try:
        wait_for(lambda: chosen() == dict(expected), COUNTS_TIMEOUT_S, "the balancer's counts")
    except LabError:
        counted = chosen()
        for key in sorted(expected.keys() | counted.keys()):
            result.check(
                f"{key[1]}: flows of {key[0]} seen by the client and scheduled by the balancer",
                expected.get(key),
                counted.get(key),
            )
    _compare_datagrams(played, result)
    _sum(result)


def _sum(result: Result) -> None:
    for number in SUMS:
        values = [row[number] for row in result.balancer]
        if None not in values:  # answers that go past the gateway
            result.evidence[number] = sum(values)


def _compare_datagrams(played: Played, result: Result) -> None:
    """A datagram is a packet: of services without TCP the balancer's packet counts are known exactly."""
    web = {load.service for load, _ in played.tallies if load.kind == "http"}
    sent: Counter[tuple[str, str]] = Counter()
    for load, tally in played.tallies:
        if load.service not in web:
            for name in result.backends:
                sent[load.service, name] += tally.answered[name]
    seen = {(row["service"], played.host_of(row)): row["packets_in"] for row in result.balancer}
    for (service, name), datagrams in sent.items():
        result.check(f"{name}: datagrams and the balancer's packets in", datagrams, seen.get((service, name)))


def compare_weights(played: Played, result: Result) -> None:
    """The shares of the connections, against the weights."""
    weights = sum(backend.weight for backend in result.backends.values())
    total = played.of_kind("http").flows.total()
    loads = sum(load.kind == "http" for load in played.scenario.loads)
    for name, backend in result.backends.items():
        if not (weights and total):
            return
        wanted, share = backend.weight / weights, backend.connections / total
        if played.scenario.by_chance:
            tolerance = DEVIATIONS * (wanted * (1 - wanted) / total) ** 0.5
        else:
            tolerance = SHARE_TOLERANCE + loads / total  # a turn of each service may have just begun
        if abs(share - wanted) > tolerance:
            result.problems.append(
                f"{name} got {share:.0%} of the connections, its weight {backend.weight} is {wanted:.0%}"
            )


def compare_packets(played: Played, result: Result, passed: Callable[[], int]) -> int:
    """All that came to the gateway for the VIPs, counted beside the balancer, against its own `packets_in`.

    Returns how many that was.
    """

    counted = 0

    def agree() -> bool:
        nonlocal counted
        result.balancer = played.rows()
        counted = sum(row["packets_in"] for row in result.balancer)
        return counted == passed()

    try:
        wait_for(agree, COUNTS_TIMEOUT_S, "the balancer's packets")
    except LabError:
        result.check("packets to the VIPs at the gateway and the balancer's packets in", passed(), counted)
        return passed()
    finally:
        _sum(result)
    return counted
