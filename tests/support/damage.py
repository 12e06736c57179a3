"""Messages that are damaged where it hurts: seeds with a few changes, for tests that compare two readings."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from random import Random

TELLING = (
    *(
        b"\r",
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"\x00",
        b"\x0b",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"_",
        b"%",
    ),
    *(
        b"/",
        b"..",
        b"//",
        b"%2e",
        b"#",
        b"?",
        b"0",
        b"1",
        b"\r\n\r\n",
        b"\r\n ",
        b"chunked",
        b"close",
        b"Host: b",
    ),
    *(b"Content-Length: 3", b"Transfer-Encoding: chunked", b"HTTP/1.0", b"http://a", b'"', b"=", b"g", b"-"),
)


def damaged(random: Random, seeds: Sequence[bytes]) -> bytes:
    """A seed with up to three changes, or two seeds in one."""
    data = bytearray(random.choice(seeds))
    if random.randrange(12) == 0:
        other = random.choice(seeds)
        place = random.randrange(len(data) + 1)
        data[place:] = other[random.randrange(len(other) + 1) :]
    for _ in range(random.randrange(4)):
        place = random.randrange(len(data) + 1)
        match random.randrange(6):
            case 0:
                data[place:place] = random.choice(TELLING)
            case 1:
                data[place : place + 1] = random.choice(TELLING)
            case 2:
                data[place : place + 1] = bytes([random.randrange(256)])
            case 3:
                del data[place : place + random.randrange(1, 4)]
            case 4:
                del data[place:]
            case 5:
                data[place:place] = data[place : place + random.randrange(1, 30)]
    return bytes(data)


def rounds(count: int) -> Iterator[tuple[int, Random]]:
    """Numbers from 0 on, and one source of chance for all: `count` with the same seed each time, or as many
    as L4LB_FUZZ_SECONDS gives time for, each time from another."""
    seconds = float(os.environ.get("L4LB_FUZZ_SECONDS", "0"))
    seed = int.from_bytes(os.urandom(4)) if seconds else 1
    print(f"seed {seed}")
    random = Random(seed)
    end = time.monotonic() + seconds
    number = 0
    while number < count or time.monotonic() < end:
        yield number, random
        number += 1


def random_cut(random: Random, data: bytes) -> list[int]:
    return [random.randrange(len(data) + 1) for _ in range(random.randrange(1, 6))]
