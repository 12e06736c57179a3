"""Schedulers that users write in Python, over both cores, loaded, and failing (docs/design/decision.md,
section 15)."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from l4lb.control.config import parse_config, parse_placed
from l4lb.dataplane.custom import Candidate, Guard, NewFlow, Scheduler
from l4lb.dataplane.decision import Reason
from l4lb.dataplane.table import Table
from l4lb.errors import ConfigError
from l4lb.model import Scheduler as Known
from l4lb.net.userscheduler import REPORT_EVERY_S, Schedulers
from tests.support.configs import error_of, web
from tests.support.cores import NATIVE, Core, both_cores
from tests.support.packets import packed, tcp
from tests.support.rows import start
from tests.support.schedulers import ByPort, InTurn, Moody, Sleepy
from tests.support.tables import Slots, Svc, make_table

A, B, C = "10.2.0.11:8080 x3", "10.2.0.12:8080 max1", "10.2.0.13:8080"


def syn(port: int, flags: str = "S") -> bytes:
    return tcp(f"198.51.100.7:{port}", "192.0.2.1:80", flags)


def table(scheduler: Scheduler, *backends: str, affinity: tuple[int, int] = (0, 0)) -> tuple[Guard, Table]:
    guard = Guard(scheduler)
    service = Svc("web", ["192.0.2.1:80/tcp"], backends, Known.MAGLEV, affinity=affinity, custom=guard)
    return guard, make_table(service, slots=Slots())


class Recording(Scheduler):
    def choose(self, flow: NewFlow, backends: list[Candidate]) -> int:  # type: ignore[override]
        self.asked = getattr(self, "asked", [])
        self.asked.append((flow, list(backends)))
        return len(backends) - 1


@both_cores
def test_it_is_asked_for_new_flows_and_told_who_can_take_them(core: Core) -> None:
    recording = Recording("web")
    _, published = table(recording, A, B, C, f"{C[:-5]}9 x0")
    balancer = start(core, published)
    assert balancer.decide(syn(40_000), 0).slot == 2
    assert balancer.decide(syn(40_000, "A"), 0).reason is Reason.FLOW
    assert (
        balancer.decide(syn(40_001, "A"), 0).reason is Reason.SCHEDULED
    )  # by the hash, whatever the scheduler
    assert len(recording.asked) == 1
    flow, candidates = recording.asked[0]
    assert flow[:5] == (packed("198.51.100.7"), 40_000, packed("192.0.2.1"), 80, 6)
    assert candidates == [
        Candidate(packed("10.2.0.11"), 8080, 3, 0, 0, 0, 0),
        Candidate(packed("10.2.0.12"), 8080, 1, 1, 0, 0, 0),
        Candidate(packed("10.2.0.13"), 8080, 1, 0, 0, 0, 0),
    ]
    balancer.decide(syn(40_002), 0)
    assert recording.asked[1][1][2][4:] in {(1, 1, 1), (2, 1, 2)}


@both_cores
def test_who_is_full_is_not_offered(core: Core) -> None:
    _, published = table(ByPort("web"), B, C)
    balancer = start(core, published)
    assert [balancer.decide(syn(port), 0).slot for port in (40_000, 40_002, 40_004)] == [0, 1, 1]
    _, published = table(ByPort("web"), B)
    balancer = start(core, published, syn(1))
    assert balancer.decide(syn(2), 0).reason is Reason.BACKENDS_FULL


@both_cores
def test_affinity_comes_first(core: Core) -> None:
    _, published = table(InTurn("web"), A, C, affinity=(32, 60_000))
    balancer = start(core, published, syn(1))
    assert [balancer.decide(syn(port), 0).reason for port in (2, 3)] == [Reason.AFFINITY] * 2


@both_cores
def test_a_preview_asks_a_copy(core: Core) -> None:
    _, published = table(InTurn("web"), A, C)
    balancer = start(core, published)
    assert [balancer.preview(syn(1), 0).slot for _ in range(3)] == [0, 0, 0]
    assert [balancer.decide(syn(port), 0).slot for port in (1, 2, 3)] == [0, 1, 0]


@both_cores
def test_a_failure_is_counted_and_the_hash_decides(core: Core) -> None:
    guard, published = table(Moody("web"), A, C)
    hashed = make_table(Svc("web", ["192.0.2.1:80/tcp"], [A, C], Known.MAGLEV), slots=Slots())
    balancer, other = start(core, published, capacity=256), start(core, hashed, capacity=256)
    for port in (40_000, 40_001, 40_002, 40_005):
        assert balancer.decide(syn(port), 0) == other.decide(syn(port), 0)
    assert guard.failures == 4
    assert guard.trouble == "LookupError: no mood"
    balancer.decide(syn(40_003), 0)
    assert guard.failures == 4
    balancer.decide(syn(40_001), 200_000)
    assert guard.trouble == "choose returned 2, which is no number from 0 to 1"
    balancer.preview(syn(40_006), 200_000)
    assert guard.failures == 5


def test_the_control_plane_goes_on_while_it_thinks() -> None:
    """It is asked under locks, and lets go of Python's: nobody may hold that and wait for those."""
    _, published = table(Sleepy("web"), A, C)
    balancer = start(NATIVE, published, capacity=4096)
    done = threading.Event()

    def work() -> None:
        balancer.decide_all([syn(port) for port in range(1, 101)], 0)
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not done.is_set():
        balancer.publish(published)
        balancer.slot_counters(0)
        balancer.load_counters({"reasons": {}, "slots": {}})
        balancer.preview(syn(1), 0)
    worker.join(timeout=30)
    assert not worker.is_alive()
    assert balancer.flow_count() == 100


# From the file ---------------------------------------------------------------------------------------

HERE = "tests.support.schedulers"


def placed(name: str) -> str:
    return web(more=f'      scheduler: {{python: "{name}"}}\n')


def test_a_class_is_named_and_nothing_is_imported_by_reading() -> None:
    (service,) = parse_config(placed("no.such:Thing"), "lb.yaml").services
    assert (service.python, service.scheduler) == ("no.such:Thing", Known.MAGLEV)


def test_one_object_is_made_for_each_service_and_kept() -> None:
    config = parse_placed(placed(f"{HERE}:ByPort"), "lb.yaml")
    (service,) = config.value.services
    schedulers = Schedulers()
    assert schedulers.of(service) is None
    schedulers.load(config)
    guard = schedulers.of(service)
    assert guard is not None
    schedulers.load(config)
    assert schedulers.of(service) is guard


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no.such:Thing", "no.such cannot be imported (ModuleNotFoundError: No module named 'no'); "),
        (f"{HERE}:Nobody", f"module {HERE} has no Nobody; name a class of it"),
        (
            f"{HERE}:Stranger",
            f"Stranger of {HERE} is no scheduler; derive it from l4lb.dataplane.custom.Sche",
        ),
        (f"{HERE}:Abstract", f"Abstract of {HERE} has no method choose; define choose(self, flow, backends)"),
        (f"{HERE}:WrongWords", f"WrongWords.choose of {HERE}: too many positional arguments; define it as "),
        (f"{HERE}:Unmade", f"Unmade('web') of {HERE} failed (RuntimeError: no licence); it is made with "),
    ],
)
def test_what_cannot_be_loaded_is_an_error_of_the_file(name: str, reason: str) -> None:
    config = parse_placed(placed(name), "lb.yaml")
    error = error_of(lambda: Schedulers().load(config))
    assert error.startswith(f"lb.yaml:6:27: l4.services[0].scheduler.python: {reason}")


@pytest.mark.parametrize(
    "name", ["fewest_open", "fewest_open.FewestOpen", ":X", "a:", "a..b:C", "a:b.C", "1:2"]
)
def test_what_names_no_class(name: str) -> None:
    with pytest.raises(ConfigError, match=r"must be a class such as package\.module:Class"):
        parse_config(placed(name), "lb.yaml")


def test_complaints_are_bounded() -> None:
    config = parse_placed(placed(f"{HERE}:Moody"), "lb.yaml")
    schedulers = Schedulers()
    schedulers.load(config)
    guard = schedulers.of(config.value.services[0])
    assert guard is not None
    flow, backends = NewFlow(b"", 40_000, b"", 80, 6, 0), [Candidate(b"", 0, 1, 0, 0, 0, 0)]
    assert list(schedulers.complaints(0)) == []
    for _ in range(3):
        guard.pick(flow, backends)
    assert list(schedulers.complaints(0)) == [("web", 3, "LookupError: no mood")]
    guard.pick(flow, backends)
    assert list(schedulers.complaints(REPORT_EVERY_S - 1)) == []
    assert list(schedulers.complaints(REPORT_EVERY_S)) == [("web", 1, "LookupError: no mood")]
    assert schedulers.failures() == 4


def test_the_example_works(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = Path(__file__).parents[2] / "examples"
    monkeypatch.syspath_prepend(examples)
    config = parse_placed((examples / "python.yaml").read_text(), "python.yaml")
    schedulers = Schedulers()
    schedulers.load(config)
    guard = schedulers.of(config.value.services[0])
    assert guard is not None
    backends = [Candidate(b"", 0, 1, 0, 2, 2, 2), Candidate(b"", 0, 3, 0, 3, 3, 3)]
    assert guard.pick(NewFlow(b"", 1, b"", 80, 6, 7), backends) == 1
