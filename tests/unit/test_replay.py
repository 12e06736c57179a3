"""Captures through the core: files of every kind, balance, and what another configuration would change."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, CookedLinux, Dot1Q, Ether
from scapy.packet import Packet
from scapy.utils import PcapNgWriter, PcapWriter

from l4lb.cli.main import cli
from l4lb.control.config import parse_config
from l4lb.control.rehearsal import Rehearsal
from l4lb.errors import ConfigError, L4lbError
from l4lb.net.captures import CaptureReader, CaptureWriter
from l4lb.net.sniffer import Seen
from tests.support.cores import KEY
from tests.support.packets import tcp, udp

KEYED = f"hash_key: '{KEY.hex()}'"
START = 1_700_000_000.0
WEB = "203.0.113.10:80"


def config(
    backends: Sequence[str], *, forward: str = "nat", scheduler: str = "maglev", more: str = ""
) -> str:
    listed = "\n".join(f"        - {backend}" for backend in backends)
    return f"""
l4:
  {KEYED}
  services:
    - name: web
      listen: {WEB}/tcp
      forward: {forward}
      scheduler: {scheduler}
      {more}
      backends:
{listed}
"""


THREE = ["10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080"]


def connections(count: int) -> list[bytes]:
    """SYN, ACK and 100 bytes of so many clients, mixed."""
    clients = [f"198.51.{number // 200}.{number % 200 + 1}:{40000 + number}" for number in range(count)]
    return [
        tcp(client, WEB, flags, payload)
        for flags, payload in (("S", b""), ("A", b""), ("PA", b"x" * 100))
        for client in clients
    ]


def write(path: Path, packets: Sequence[bytes | Packet], *, spacing_s: float = 0.001) -> Path:
    writer = (PcapNgWriter if path.suffix == ".pcapng" else PcapWriter)(str(path))
    for number, data in enumerate(packets):
        packet = (IPv6 if data[0] >> 4 == 6 else IP)(data) if isinstance(data, bytes) else data
        packet.time = START + number * spacing_s
        writer.write(packet)
    writer.close()
    return path


def replay(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["replay", *map(str, words)])


def replayed(*words: str | Path) -> dict[str, Any]:
    done = replay(*words, "--json")
    assert done.exception is None, done.output
    return json.loads(done.output.splitlines()[-1])


@pytest.fixture
def web(tmp_path: Path) -> Path:
    path = tmp_path / "web.yaml"
    path.write_text(config(THREE))
    return path


def test_the_balance_of_a_capture(tmp_path, web):
    report = replayed(write(tmp_path / "a.pcap", connections(300)), "-c", web)
    assert report["packets"] == 900 and report["not_ip"] == 0
    assert report["seconds"] == pytest.approx(0.899)
    assert report["reasons"] == {"scheduled": 300, "flow": 600}
    assert sum(row["flows"] for row in report["backends"]) == 300
    for row in report["backends"]:
        assert row["weight_share"] == pytest.approx(1 / 3, abs=1e-4)
        assert row["flows_share"] == pytest.approx(1 / 3, abs=0.1)
        assert row["packets"] == 3 * row["flows"]
        assert row["bytes"] == (40 + 40 + 140) * row["flows"]
    assert report["against"] is None


@pytest.mark.parametrize("name", ["a.pcap", "a.pcapng"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda p: IP(p),
        lambda p: Ether() / IP(p),
        lambda p: Ether() / Dot1Q(vlan=7) / IP(p),
        lambda p: CookedLinux(proto=0x800) / IP(p),
    ],
    ids=["raw", "ethernet", "vlan", "cooked"],
)
def test_link_types(tmp_path, web, name, wrap):
    report = replayed(write(tmp_path / name, [wrap(p) for p in connections(5)]), "-c", web)
    assert report["reasons"] == {"scheduled": 5, "flow": 10}


def test_compressed_and_other_packets(tmp_path, web):
    other = [
        Ether() / ARP(),
        Ether() / IP(udp("10.0.0.1:53", "10.0.0.2:53")),
        Ether() / IP(connections(1)[0]),
    ]
    path = write(tmp_path / "a.pcap", other)
    packed = tmp_path / "a.pcap.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    report = replayed(packed, "-c", web)
    assert report["packets"] == 3 and report["not_ip"] == 1
    assert report["reasons"] == {"scheduled": 1, "not_balanced": 1}


def test_packets_cut_by_the_capture_are_decided_as_whole_ones(tmp_path, web):
    writer = PcapWriter(str(tmp_path / "a.pcap"), linktype=101)
    writer.write_header(None)
    for packet in connections(10):
        writer.write_packet(packet[:48], sec=1, usec=0, wirelen=len(packet))
    writer.close()
    report = replayed(tmp_path / "a.pcap", "-c", web)
    assert report["reasons"] == {"scheduled": 10, "flow": 20}
    assert sum(row["bytes"] for row in report["backends"]) == 10 * (40 + 40 + 140)


@pytest.mark.parametrize("forward", ["nat", "masquerade", "dsr", "ipip", "gue"])
@pytest.mark.parametrize("cut", [40, 65535])
def test_every_way_to_forward_needs_no_host(tmp_path, forward, cut):
    backends = [name.removesuffix(":8080") if forward in ("dsr", "ipip", "gue") else name for name in THREE]
    rehearsal = Rehearsal(parse_config(config(backends, forward=forward), "test"), KEY)
    for packet in connections(50):
        choice = rehearsal.decide(packet[:cut], len(packet), START)
        assert choice.service == "web" and choice.backend in backends
    assert rehearsal.reasons() == {"scheduled": 50, "flow": 100}


def test_backups_get_nothing_while_the_others_are_up(tmp_path):
    path = tmp_path / "web.yaml"
    health = "health: {type: tcp}"
    path.write_text(config([*THREE[:2], '{address: "10.2.0.13:8080", backup: true}'], more=health))
    report = replayed(write(tmp_path / "a.pcap", connections(60)), "-c", path)
    assert [row["weight"] for row in report["backends"]] == [1, 1, 0]
    assert report["backends"][2]["flows"] == 0


def test_flows_end_by_the_packets_own_time(tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text(config(THREE, scheduler="round-robin"))
    syns = connections(2)[:1] * 3
    assert replayed(write(tmp_path / "a.pcap", syns), "-c", path)["reasons"] == {"scheduled": 1, "flow": 2}
    late = write(tmp_path / "b.pcap", syns, spacing_s=61)
    assert replayed(late, "-c", path)["reasons"] == {"scheduled": 3}


@pytest.mark.parametrize("times", [(5.0, 1.0), (0.0, 1e300), (-1e9, 0.0), (0.0, 1e12)])
def test_odd_times_are_harmless(times):
    rehearsal = Rehearsal(parse_config(config(THREE), "test"), KEY)
    for at in times:
        assert rehearsal.decide(connections(1)[0], 40, at).backend is not None


class TestAgainst:
    @pytest.fixture
    def capture(self, tmp_path: Path) -> Path:
        return write(tmp_path / "a.pcap", connections(300))

    def against(self, tmp_path: Path, capture: Path, web: Path, text: str) -> dict[str, Any]:
        other = tmp_path / "other.yaml"
        other.write_text(text)
        return replayed(capture, "-c", web, "--against", other)["against"]

    def test_the_same_configuration_moves_nothing(self, tmp_path, capture, web):
        found = self.against(tmp_path, capture, web, config(THREE))
        assert (found["flows"], found["moved"], found["lost"], found["gained"]) == (300, 0, 0, 0)
        assert found["disruption"] == 0

    def test_maglev_moves_about_what_the_new_backend_gets(self, tmp_path, capture, web):
        found = self.against(tmp_path, capture, web, config([*THREE, "10.2.0.14:8080"]))
        assert 0.2 < found["disruption"] < 0.35
        assert found["backends"][3]["flows"] == pytest.approx(found["moved"], abs=30)

    def test_a_service_that_is_gone_loses_its_flows_and_one_that_is_new_gains_them(
        self, tmp_path, capture, web
    ):
        elsewhere = config(THREE).replace(WEB, "203.0.113.99:80")
        found = self.against(tmp_path, capture, web, elsewhere)
        assert (found["lost"], found["moved"], found["disruption"]) == (300, 0, 1)
        first = tmp_path / "other.yaml"
        gained = replayed(capture, "-c", first, "--against", web)["against"]
        assert (gained["flows"], gained["gained"], gained["disruption"]) == (0, 300, None)

    def test_for_people(self, tmp_path, capture, web):
        shown = replay(capture, "-c", web, "--against", web).output
        assert "900 packets" in shown and "10.2.0.13:8080" in shown
        assert "of 300 flows 0 would go to another backend" in shown


class TestWrongFiles:
    @pytest.mark.parametrize(
        "content", [b"", b"GIF89a" + bytes(100), b"\x1f\x8bnonsense", b"\x0a\x0d\x0d\x0a\0\0"]
    )
    def test_what_is_no_capture(self, tmp_path, web, content):
        path = tmp_path / "a.pcap"
        path.write_bytes(content)
        with pytest.raises(L4lbError, match=r"a\.pcap: is no pcap") as error:
            replay_raising(path, web)
        assert error.value.exit_code == 1

    @pytest.mark.parametrize("name", ["missing.pcap", "."])
    def test_what_cannot_be_opened(self, tmp_path, web, name):
        with pytest.raises(ConfigError, match="cannot be read"):
            replay_raising(tmp_path / name, web)

    @pytest.mark.parametrize("name", ["a.pcap", "a.pcapng"])
    def test_a_file_that_ends_early_is_reported_behind_what_was_read(self, tmp_path, web, name):
        path = write(tmp_path / name, connections(10))
        path.write_bytes(path.read_bytes()[:-10])
        done = replay(path, "-c", web, "--json")
        assert isinstance(done.exception, L4lbError) and "is damaged" in str(done.exception)
        assert json.loads(done.output.splitlines()[-1])["packets"] == 29

    def test_a_link_type_that_is_not_known(self, tmp_path, web):
        header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 105)
        (tmp_path / "a.pcap").write_bytes(header + struct.pack("<IIII", 0, 0, 4, 4) + b"abcd")
        with pytest.raises(L4lbError, match="link type 105"):
            replay_raising(tmp_path / "a.pcap", web)

    def test_a_wrong_configuration(self, tmp_path):
        with pytest.raises(ConfigError):
            replay_raising(tmp_path / "a.pcap", tmp_path / "none.yaml")


def replay_raising(path: Path, web: Path) -> None:
    done = replay(path, "-c", web)
    assert done.exception is not None, done.output
    raise done.exception


class TestWriter:
    def test_what_is_written_is_read_again(self, tmp_path):
        path = tmp_path / "a.pcapng"
        four, six = connections(1)[0], tcp("[2001:db8::7]:1", "[2001:db8:f::10]:80")
        writer = CaptureWriter(path)
        writer.write(Seen(four, len(four), START, "eth0"), "first → one")
        writer.write(Seen(six[:50], len(six), START + 1.5, "eth1"), "second")
        writer.flush()
        writer.close()
        with CaptureReader(path) as capture:
            assert capture.size > 0
            read = list(capture)
            assert capture.position == capture.size
        assert [(p.data, p.length) for p in read] == [(four, len(four)), (six[:50], len(six))]
        assert [p.time_s for p in read] == [START, START + 1.5]

    def test_comments_are_those_of_the_format(self, tmp_path):
        from scapy.utils import PcapNgReader

        path = tmp_path / "a.pcapng"
        writer = CaptureWriter(path)
        packet = connections(1)[0]
        writer.write(Seen(packet, len(packet), START, "eth0"), "reason=flow → b")
        writer.close()
        with PcapNgReader(str(path)) as reader:
            found = reader.read_packet()
        assert found.comment.decode() == "reason=flow → b"
        assert found.sniffed_on == "eth0"
        assert bytes(found[IP]) == packet

    def test_a_capture_without_packets_is_a_file_too(self, tmp_path):
        writer = CaptureWriter(tmp_path / "a.pcapng")
        writer.close()
        with CaptureReader(tmp_path / "a.pcapng") as capture:
            assert list(capture) == []

    def test_a_place_that_cannot_be_written(self, tmp_path):
        with pytest.raises(ConfigError, match="cannot be written"):
            CaptureWriter(tmp_path / "none" / "a.pcapng")
