"""A configuration is changed while traffic flows: nothing is lost, and a wrong one changes nothing."""

from __future__ import annotations

import os
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.integration.gateway import VIP4, ask, balancing, explained, get, serving, shares
from tests.integration.under_load import requesting, transferring
from tests.support.lab import Lab, LabError, wait_for

pytestmark = pytest.mark.root
CONFIG = """
l4:
  datapath: {datapath}
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      scheduler: round-robin
      backends: [{backends}]
    - name: echo
      listen: 203.0.113.10:7/udp
      scheduler: source-hash
      backends: [10.2.0.11:7]
"""
ALL = "10.2.0.11:8080, 10.2.0.12:8080, 10.2.0.13:8080"
OTHERWISE = '{address: "10.2.0.13:8080", weight: 0}, 10.2.0.11:8080, {address: "10.2.0.12:8080", weight: 5}'


def write(lab: Lab, text: str) -> None:
    (Path(lab.gateway.directory) / "l4lb.yaml").write_text(text)


@pytest.mark.parametrize("datapath", ["mark", "rewrite"])
def test_reloads_under_load_fail_no_request(lab, datapath):
    first = CONFIG.format(datapath=datapath, backends=ALL)
    second = CONFIG.format(datapath=datapath, backends=OTHERWISE)
    with serving(lab), balancing(lab, first) as running:
        with requesting(lab):
            for text in (second, first) * 4:
                write(lab, text)
                running.command("reload")
        status = running.status()
        assert status["undecided"] == 0
        assert all(
            (q["dropped_full"], q["dropped_socket"], q["verdict_errors"]) == (0, 0, 0)
            for q in status["queues"]
        )


@pytest.mark.parametrize("datapath", ["mark", "rewrite"])
def test_a_bulk_transfer_and_datagrams_survive_every_reload(lab, datapath):
    base = CONFIG.format(datapath=datapath, backends=ALL) + (
        "    - {name: bulk, listen: 203.0.113.10:5201/tcp, scheduler: source-hash, backends: [10.2.0.11]}\n"
    )
    more = base + "    - {name: late, listen: 203.0.113.12:80/tcp, backends: [10.2.0.12:8080]}\n"
    with serving(lab), balancing(lab, base) as running, transferring(lab, 5201, rate="0"):
        for text in (more, base) * 4:
            write(lab, text)
            running.command("reload")
            assert ask(lab, VIP4, 7) == "b1"


def test_a_new_service_answers_and_a_removed_one_no_longer(lab):
    base = CONFIG.format(datapath="auto", backends=ALL)
    more = base + "    - {name: late, listen: 203.0.113.12:80/tcp, backends: [10.2.0.12:8080]}\n"
    with serving(lab), balancing(lab, base) as running:
        write(lab, more)
        os.kill(running.status()["pid"], signal.SIGHUP)
        wait_for(lambda: running.status()["services"] == 3, 10, "the reload by SIGHUP")
        assert get(lab, "203.0.113.12") == "b2"
        write(lab, base)
        running.command("reload")
        with pytest.raises(OSError):
            get(lab, "203.0.113.12", timeout=1)
        assert "203.0.113.12" not in lab.gateway.run(["ip", "addr"]).stdout
        assert "203.0.113.12" not in lab.gateway.run(["nft", "list", "table", "inet", "l4lb"]).stdout


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [
        (CONFIG.format(datapath="mark", backends="10.2.0.11:0"), "port 0"),
        (CONFIG.format(datapath="rewrite", backends=ALL), "l4.datapath cannot change while running"),
        ("l4: [", "l4lb.yaml:1"),
    ],
)
def test_a_wrong_configuration_changes_nothing(lab, spoilt, says):
    with serving(lab), balancing(lab, CONFIG.format(datapath="mark", backends=ALL)) as running:
        rules = lab.gateway.run(["nft", "list", "table", "inet", "l4lb"]).stdout
        write(lab, spoilt)
        with pytest.raises(LabError, match="reload") as failed:
            running.command("reload")
        assert says in str(failed.value)
        assert lab.gateway.run(["nft", "list", "table", "inet", "l4lb"]).stdout == rules
        assert shares([get(lab) for _ in range(3)]) == {"b1": 1, "b2": 1, "b3": 1}


def test_a_weight_of_zero_takes_no_new_flow_and_keeps_the_old(lab):
    with serving(lab), balancing(lab, CONFIG.format(datapath="auto", backends=ALL)) as running:
        assert ask(lab, VIP4, 7) == "b1"
        write(
            lab,
            CONFIG.format(datapath="auto", backends=ALL).replace(
                "10.2.0.11:8080", '{address: "10.2.0.11:8080", weight: 0}'
            ),
        )
        running.command("reload")
        assert shares([get(lab) for _ in range(4)]) == {"b2": 2, "b3": 2}


def test_explain_agrees_with_what_happens(lab):
    config = CONFIG.format(datapath="auto", backends=ALL).replace("round-robin", "maglev")
    with serving(lab), balancing(lab, config) as running:
        for port in range(20000, 20012):
            said = explained(running, f"10.1.0.2:{port}", "203.0.113.10:80/tcp")
            assert (said["service"], said["reason"], said["flow"]) == ("web", "scheduled", None)
            name = {"10.2.0.11:8080": "b1", "10.2.0.12:8080": "b2", "10.2.0.13:8080": "b3"}[said["backend"]]
            assert get(lab, source=port) == name
            again = explained(running, f"10.1.0.2:{port}", "203.0.113.10:80/tcp")
            assert again["flow"]["backend"] == said["backend"]
        # To ask is not to schedule; a late packet of an earlier test's connection may be.
        assert 12 <= running.status()["reasons"]["scheduled"] < 24
        nobody = explained(running, "10.1.0.2:1000", "203.0.113.99:80/tcp")
        assert (nobody["service"], nobody["reason"], nobody["backend"]) == (None, "not_balanced", None)


def test_a_reload_moves_the_metrics(lab):
    def scrape(port: int) -> str:
        with (
            lab.gateway.enter(),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as said,
        ):
            return said.read().decode()

    def config(metrics: str) -> str:
        return CONFIG.format(datapath=f"mark\n  metrics: {metrics}", backends=ALL)

    with balancing(lab, config("127.0.0.1:9100")) as running:
        assert "l4lb_ready 1" in scrape(9100)
        write(lab, config("127.0.0.1:9101"))
        assert "l4.metrics changes" in running.command("reload")
        assert "l4lb_ready 1" in scrape(9101)
        with pytest.raises(urllib.error.URLError, match="refused"):
            scrape(9100)
        write(lab, config("192.0.2.1:9102"))  # an address of nobody here
        with pytest.raises(LabError, match=r"l4\.metrics: 192\.0\.2\.1:9102: cannot be listened on"):
            running.command("reload")
        assert "l4lb_ready 1" in scrape(9101)
