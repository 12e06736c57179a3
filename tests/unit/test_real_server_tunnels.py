"""Making tunnels, with a kernel that is played: not every kernel that tests run on has them."""

from __future__ import annotations

import errno
from ipaddress import ip_address

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from l4lb.control.realserver import Tunnel
from l4lb.errors import CapabilityError, L4lbError
from l4lb.net import realserver
from l4lb.net.made import RealServerJournal
from l4lb.net.realserver import apply, undo

TUNNEL = Tunnel("ipip", ip_address("10.2.0.11"), 1480)


class Attributes(dict):
    def get_attr(self, name):
        return self.get(name)


class Kernel:
    """The links of a host, and the calls of pyroute2's IPRoute that change them."""

    def __init__(self, refuses: int = 0):
        self.links: dict[str, dict] = {}
        self.refuses = refuses

    def __call__(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def link_lookup(self, ifname):
        return [link["index"] for link in self.links.values() if link["ifname"] == ifname]

    def get_links(self, index):
        (link,) = [link for link in self.links.values() if link["index"] == index]
        data = Attributes(IFLA_IPIP_LOCAL=link.get("ipip_local"))
        info = Attributes(IFLA_INFO_KIND=link["kind"], IFLA_INFO_DATA=data)
        return [Attributes(index=index, IFLA_LINKINFO=info)]

    def link(self, verb, **words):
        if verb == "add":
            if self.refuses:
                raise NetlinkError(self.refuses)
            self.links[words["ifname"]] = {**words, "index": 7}
            return
        (name,) = [name for name, link in self.links.items() if link["index"] == words["index"]]
        if verb == "del":
            del self.links[name]
        else:
            self.links[name] |= words


@pytest.fixture
def kernel(monkeypatch):
    played = Kernel()
    monkeypatch.setattr(realserver, "IPRoute", played)
    return played


@pytest.fixture
def journal(tmp_path):
    return RealServerJournal(tmp_path / "l4lb.real-server")


def test_a_tunnel_is_made_once_and_undone(kernel, journal):
    (made,) = apply(journal, [TUNNEL])
    assert made.changed and made.what == "tunnel l4lb-ipip to 10.2.0.11, MTU 1480"
    assert kernel.links["l4lb-ipip"] == {
        "ifname": "l4lb-ipip",
        "mtu": 1480,
        "kind": "ipip",
        "ipip_local": "10.2.0.11",
        "ipip_proto": 4,
        "index": 7,
        "state": "up",
    }
    (again,) = apply(RealServerJournal(journal.path), [TUNNEL])
    assert not again.changed
    assert list(undo(RealServerJournal(journal.path))) == ["removed the tunnel l4lb-ipip"]
    assert kernel.links == {} and not journal.path.exists()


def test_a_kernel_without_tunnels_is_named_and_nothing_is_left(kernel, journal):
    kernel.refuses = errno.EOPNOTSUPP
    with pytest.raises(CapabilityError, match="no tunnels of the kind ipip"):
        list(apply(journal, [TUNNEL]))
    assert not journal.path.exists()


@pytest.mark.parametrize("link", [{"kind": "tun"}, {"kind": "ipip", "ipip_local": "10.2.0.12"}])
def test_another_device_of_the_name_stays(kernel, journal, link):
    kernel.links["l4lb-ipip"] = {"ifname": "l4lb-ipip", "index": 3, **link}
    with pytest.raises(L4lbError, match="l4lb-ipip: is there already"):
        list(apply(journal, [TUNNEL]))
    assert list(undo(journal)) == []
    assert "l4lb-ipip" in kernel.links


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"vips": 1}', "\0"])
def test_a_spoilt_journal_is_an_error_that_names_it(tmp_path, text):
    path = tmp_path / "l4lb.real-server"
    path.write_text(text)
    with pytest.raises(L4lbError, match=r"l4lb.real-server: the journal"):
        RealServerJournal(path)
