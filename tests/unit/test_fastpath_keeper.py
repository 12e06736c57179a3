"""The thread that keeps the fast path ends, whatever it is doing."""

from __future__ import annotations

import asyncio
import contextlib

from l4lb.net.fastpath import _Keeper


def test_a_task_that_misses_that_it_was_cancelled_is_ended_all_the_same():
    async def goes_on() -> None:
        for _ in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    async def end() -> bool:
        keeper = _Keeper()
        task = asyncio.create_task(goes_on())
        keeper._tasks = [task]
        await asyncio.sleep(0)
        await asyncio.wait_for(keeper.end(), 5)
        return task.done()

    assert asyncio.run(end())
