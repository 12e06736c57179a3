"""Messages to the kernel's Foo-over-UDP, byte for byte (linux/fou.h): few test kernels have it."""

from __future__ import annotations

import struct

from l4lb.net.fou import FouMessage


def test_adding_a_gue_port():
    message = FouMessage()
    message["cmd"], message["version"] = 1, 1
    message["attrs"] = [("FOU_ATTR_PORT", 6080), ("FOU_ATTR_AF", 2), ("FOU_ATTR_TYPE", 2)]
    message.encode()
    attributes = struct.pack("=HH", 6, 1) + struct.pack("!Hxx", 6080)
    attributes += struct.pack("=HHBxxx", 5, 2, 2) + struct.pack("=HHBxxx", 5, 4, 2)
    assert bytes(message.data[16:]) == struct.pack("BBxx", 1, 1) + attributes
