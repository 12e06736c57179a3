"""Active health checks: asks backends whether they work, over asyncio.

One module a type, each with `async def check(target, settings) -> Outcome`. A check never raises, and is over
when its timeout is; what it opened is closed then, what it started killed. `kinds` finds the module of a
type, `monitor` calls them in time. What the results mean for a backend is `l4lb.control.health`'s to say.
"""
