"""Has the backends checked."""
from __future__ import annotations
from l4lb.cli.keeper import Keeper
class Watch:
    """interim"""
    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
    async def run(self) -> None:
        """interim"""
