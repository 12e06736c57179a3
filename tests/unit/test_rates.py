"""From counters to rates and sparklines."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from l4lb.cli.top import BOARD
from l4lb.console.live import View, scaled
from l4lb.console.rates import HISTORY, Rates, sparkline
from l4lb.errors import NoDaemonError


def row(backend: str, packets: int, service: str = "web", **changes: Any) -> dict[str, Any]:
    counters = {
        "bytes_in": 100 * packets,
        "packets_out": packets,
        "bytes_out": packets,
        "scheduled": packets // 10,
    }
    gauges = {"flows": 3, "active": 1, "weight": 1}
    return {"service": service, "backend": backend, "packets_in": packets, **counters, **gauges, **changes}


def rates_of(rates: Rates, name: str) -> dict[tuple[str, str | None], Any]:
    return {(r["service"], r["backend"]): r[name] for r in rates.rows}


def test_rates_are_differences_over_time_and_services_are_sums():
    rates = Rates(BOARD.measures)
    assert not rates.update([row("a", 100), row("b", 0), row("c", 5, "dns")], 10.0)
    assert rates.update([row("a", 300), row("b", 50), row("c", 5, "dns")], 12.0)
    packets = rates_of(rates, "packets_in_per_s")
    assert packets == {
        ("web", None): 125.0,
        ("web", "a"): 100.0,
        ("web", "b"): 25.0,
        ("dns", None): 0.0,
        ("dns", "c"): 0.0,
    }
    assert rates_of(rates, "bytes_in_per_s")["web", "a"] == 10_000.0
    assert rates_of(rates, "flows")["web", None] == 6
    assert rates.history("web", None) == [125.0]


def test_what_is_not_seen_has_no_rate():
    rates = Rates(BOARD.measures)
    for at in (0, 1):
        rates.update([row("a", at, packets_out=None), row("b", at)], at)
    assert rates_of(rates, "packets_out_per_s") == {
        ("web", None): None,
        ("web", "a"): None,
        ("web", "b"): 1.0,
    }


def test_a_counter_that_begins_anew_gives_no_rate_and_a_new_backend_none_at_first():
    rates = Rates(BOARD.measures)
    rates.update([row("a", 1000)], 0)
    rates.update([row("a", 10), row("b", 10)], 1)
    assert rates_of(rates, "packets_in_per_s") == {
        ("web", None): None,
        ("web", "a"): None,
        ("web", "b"): None,
    }
    rates.update([row("a", 20), row("b", 30)], 2)
    assert rates_of(rates, "packets_in_per_s")["web", "b"] == 20.0


def test_after_forgetting_the_first_sample_is_only_remembered():
    rates = Rates(BOARD.measures)
    rates.update([row("a", 10)], 0)
    rates.update([row("a", 20)], 1)
    rates.forget()
    assert not rates.update([row("a", 900)], 2)
    assert rates.history("web", "a") == [10.0]


def test_history_is_bounded_and_goes_with_its_backend():
    rates = Rates(BOARD.measures)
    for at in range(HISTORY + 10):
        rates.update([row("a", at), row("b", at)], at)
    assert len(rates.history("web", "a")) == HISTORY
    rates.update([row("a", 0)], 1000)
    assert rates.history("web", "b") == []


@pytest.mark.parametrize(
    ("values", "shown"),
    [([], ""), ([0, 0], "▁▁"), ([0, 5, 10], "▁▅█"), ([1, 2, 3, 4, 5, 6, 7, 8], "▅▆▇█"), ([0.1], "█")],
)
def test_sparklines_are_scaled_to_their_highest_value(values, shown):
    assert sparkline(values, 4) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0"), (7, "7"), (0.5, "0.5"), (950, "950"), (12_345, "12.3k"), (4.2e9, "4.2G")]
)
def test_numbers_are_short(value, shown):
    assert scaled(value) == shown


class FakeClient:
    """Answers as the daemon does; `samples` are (pid, uptime, backends), or an error."""

    def __init__(self, *samples: Any) -> None:
        self.samples = list(samples)

    def get(self, route: str) -> dict[str, Any]:
        self.now = self.samples.pop(0)
        if isinstance(self.now, Exception):
            raise self.now
        pid, uptime, _ = self.now
        queues = [{"dropped_full": 0, "dropped_socket": 2}]
        return {
            "pid": pid,
            "uptime_s": uptime,
            "version": "1",
            "datapath": "mark",
            "queues": queues,
            "flows": 1,
            "flow_capacity": 16,
        }

    def rows(self, route: str) -> list[dict[str, Any]]:
        return self.now[2]


def shown(view: View, height: int | None = None, width: int = 200) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(view.render(height))
    return console.export_text()


def test_the_view_survives_a_daemon_that_goes_and_comes_back():
    gone = NoDaemonError("l4lb.sock: no daemon answers")
    view = View(BOARD, 1.0)
    client = FakeClient((1, 5.0, [row("a", 10)]), (1, 6.0, [row("a", 20)]), gone, (2, 0.5, [row("a", 3)]))
    assert not view.sample(client)
    assert view.sample(client)
    assert not view.sample(client)
    assert "no daemon answers" in shown(view) and "a" in shown(view)
    assert not view.sample(client)
    assert view.trouble is None and view.restarts == 1
    assert "1 restarts" in shown(view) and "2 lost by full queues" in shown(view)


def test_keys_sort_scroll_pause_and_quit():
    view = View(BOARD, 1.0)
    client = FakeClient(*((1, at, [row("a", at), row("b", 5 * at)]) for at in (1, 2)))
    view.sample(client)
    view.sample(client)
    assert [r["backend"] for r in view.sorted_rows()] == [None, "a", "b"]
    for _ in range(3):
        assert view.press("s")
    assert [r["backend"] for r in view.sorted_rows()] == [None, "b", "a"]
    assert view.press("S") and view.sort == 2
    assert view.press("p") and view.paused and "PAUSED" in shown(view)
    assert view.press("j") and view.press("\x1b[B") and view.press("k")
    assert view.press("x")
    assert "lines above" in shown(view, 8)
    assert not view.press("q")


def test_a_view_without_a_daemon_yet_can_be_shown():
    assert "waiting for a daemon" in shown(View(BOARD, 1.0))


def test_a_narrow_terminal_shows_whole_names():
    view = View(BOARD, 1.0)
    view.sample(FakeClient((1, 5.0, [row("10.2.0.11:8080", 10)])))
    text = shown(view, 20, width=80)
    assert "  10.2.0.11:8080 " in text
    assert max(map(len, text.splitlines())) <= 80
