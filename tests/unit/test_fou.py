"""Foo-over-UDP, which few test kernels have: its messages (linux/fou.h), and what its lack gives."""

from __future__ import annotations

import gc
import struct
import warnings

import pytest

from l4lb.errors import CapabilityError
from l4lb.net import fou
from l4lb.net.fou import FouMessage


def test_a_kernel_without_it_is_named_and_nothing_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fou, "_FAMILY", "no-such-family")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(CapabilityError, match="modprobe fou"):
            fou.gue_port_exists(4, 6080)
        gc.collect()
    assert [str(one.message) for one in seen] == []


def test_adding_a_gue_port():
    message = FouMessage()
    message["cmd"], message["version"] = 1, 1
    message["attrs"] = [("FOU_ATTR_PORT", 6080), ("FOU_ATTR_AF", 2), ("FOU_ATTR_TYPE", 2)]
    message.encode()
    attributes = struct.pack("=HH", 6, 1) + struct.pack("!Hxx", 6080)
    attributes += struct.pack("=HHBxxx", 5, 2, 2) + struct.pack("=HHBxxx", 5, 4, 2)
    assert bytes(message.data[16:]) == struct.pack("BBxx", 1, 1) + attributes
