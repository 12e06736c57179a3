"""Memory that outlives a generation: sessions that were remembered.

It lies in memory files (memfd_create(2)), so that forked workers share it, the next generation goes on with
it, and a program that takes over in the same process, too.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass

from l7.balancing.sessions import SessionTable
from l7.model import L7Config, Sticky, StickyKind

_REMEMBERING = (StickyKind.LEARN, StickyKind.SOURCE)


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """A memory file and where it is mapped."""

    descriptor: int
    content: mmap.mmap

    @classmethod
    def make(cls, name: str, size: int) -> SharedMemory:
        """`size` bytes of zeros."""
        descriptor = os.memfd_create(f"l7lb-{name}")
        os.ftruncate(descriptor, size)
        return cls(descriptor, mmap.mmap(descriptor, size))

    @classmethod
    def adopt(cls, descriptor: int) -> SharedMemory:
        """What the program before made."""
        return cls(descriptor, mmap.mmap(descriptor, os.fstat(descriptor).st_size))

    def close(self) -> None:
        """Lets go of it; the mapping goes when nothing refers to it any more."""
        os.close(self.descriptor)


def provide_sessions(config: L7Config, known: dict[str, SharedMemory]) -> dict[str, SharedMemory]:
    """The memory of each pool that remembers sessions: that of `known` where its size is right, else new."""
    found = {}
    for pool in config.pools:
        if pool.sticky is not None and remembers(pool.sticky):
            size = SessionTable.size_for(pool.sticky.capacity)
            memory = known.get(pool.name)
            if memory is None or len(memory.content) != size:
                memory = SharedMemory.make(f"sessions {pool.name}", size)
            found[pool.name] = memory
    return found


def remembers(sticky: Sticky) -> bool:
    """Whether sessions of that kind have to be remembered."""
    return sticky.kind in _REMEMBERING
