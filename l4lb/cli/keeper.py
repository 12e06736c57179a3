"""Keeps what is running in step with what is wanted: the file, operators' wishes, checks and time.

All changes go one way: into the roster, which says what the effective configuration is, and from there
through `carry_out`, which makes it true. One at a time; what checks and time change is gathered while
another change is at work.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from l4lb.control.difference import describe_difference
from l4lb.control.endpoint import parse_endpoint
from l4lb.control.member import Admin, Key
from l4lb.control.quorum import ServiceState, Standing
from l4lb.control.roster import Roster
from l4lb.control.wish import weight_of
from l4lb.errors import ConfigError, L4lbError
from l4lb.model import Address, Backend, L4Config, OnDown
from l4lb.net.logs import log

Json = dict[str, Any]
CarryOut = Callable[[L4Config, Iterable[tuple[Key, OnDown]], frozenset[Address]], None]
News = Callable[[Roster], bool]
"""What a check has to say to a roster; true where that changes it."""
_RETRY_S = 1.0
_YOUNG = 1
"""Up to this generation objects are few: all since the last collection."""
_ADMIN = {"drain": Admin.DRAINING, "enable": Admin.ENABLED, "disable": Admin.DISABLED}
_FLAGS = ("maintenance", "end_flows")
ACTIONS = (*_ADMIN, "weight", "add", "remove")


class Keeper:
    """Holds the roster of the running configuration. `carry_out` is called in a thread of its own."""

    def __init__(self, config: L4Config, carry_out: CarryOut) -> None:
        self.roster = Roster(config)
        self.roster.settle(time.monotonic())
        self.trouble: str | None = None
        """Why the last change could not be carried out; it is tried again."""
        self.on_settled: Callable[[], None] = lambda: None
        """Called after every change, in the event loop."""
        self._carry_out = carry_out
        self._meanwhile: list[News] | None = None
        """What checks say while a change is at work, in order."""
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._news = False
        """Whether checks have said something that is not carried out yet."""

    @property
    def lock(self) -> asyncio.Lock:
        """Held while something changes."""
        return self._lock

    async def reload(self, load: Callable[[], L4Config], *, dry_run: bool) -> Json:
        """Takes a configuration anew; on any error the old one goes on. `load` reads and checks it."""
        async with self._lock:
            began = time.monotonic()
            with _no_cycles():
                return await self._reload(load, began, dry_run=dry_run)

    async def _reload(self, load: Callable[[], L4Config], began: float, *, dry_run: bool) -> Json:
        config = await asyncio.to_thread(load)
        changes = describe_difference(self.roster.config, config)
        if not dry_run:
            trial = self.roster.copy()
            trial.adopt(config, began)
            await self._adopt(trial)
            self._wake.set()  # what goes by time may be due earlier now
        took = round(time.monotonic() - began, 3)
        services = len(config.services)
        if not dry_run:
            log("reloaded", services=services, changes=len(changes), seconds=took)
        return {"reloaded": not dry_run, "services": services, "seconds": took, "changes": changes}

    async def change(self, action: str, wish: Json) -> Json:
        """Carries out an operator's wish for one backend; on any error nothing changes."""
        async with self._lock:
            trial = self.roster.copy()
            service, backend = _names(wish)
            now = time.monotonic()
            if action in _ADMIN:
                maintenance, end_flows = _flags(action, wish)
                admin = Admin.MAINTENANCE if maintenance else _ADMIN[action]
                trial.set_admin(service, backend, admin, now, ends_flows=end_flows)
            elif action == "weight":
                trial.set_weight(service, backend, weight_of(wish))
            elif action == "add":
                address, port = _endpoint(backend)
                weight = weight_of(wish)
                most = trial.max_connections(service)
                made = Backend(address, port, 1 if weight is None else weight, max_connections=most)
                _refuse_family(trial.config, service, made)
                trial.add(service, made)
                backend = made.name
            elif action == "remove":
                trial.remove(service, backend)
            else:
                raise ConfigError(f"backends: unknown action {action}; there are {', '.join(ACTIONS)}")
            await self._adopt(trial)
            self._wake.set()  # what goes by time may be due earlier now
            log(f"backend {action}", service=service, backend=backend, by="operator")
            return {"action": action, "service": service, "backend": backend}

    def report(self, key: Key, *, up: bool, out: bool, why: str) -> None:
        """What checks found; carried out soon."""
        if self._hear(partial(Roster.report, key=key, up=up, out=out, why=why, now_s=time.monotonic())):
            word = "up" if up and not out else "down"
            log(f"backend {word}", service=key[0], backend=key[1], why=why, level=logging.WARNING)

    def weigh(self, key: Key, weight: int) -> None:
        """The weight that a backend wishes for, as a check has it; carried out soon."""
        if self._hear(partial(Roster.weigh, key=key, weight=weight)):
            log("backend weight", service=key[0], backend=key[1], weight=weight, by="check")

    def _hear(self, news: News) -> bool:
        """Takes news in; True where they are some."""
        if self._meanwhile is not None:
            self._meanwhile.append(news)
        changed = news(self.roster)
        if changed:
            self._wake_for_news()
        return changed

    def _wake_for_news(self) -> None:
        self._news = True
        self._wake.set()

    async def follow(self) -> None:
        """Carries out what checks and slow starts change, until it is cancelled."""
        while True:
            step = _RETRY_S if self.trouble else self.roster.next_step_s(time.monotonic())
            is_due = False
            try:
                await asyncio.wait_for(self._wake.wait(), step)
            except TimeoutError:
                is_due = True
            self._wake.clear()
            if not (is_due or self._news or self.trouble):
                continue  # a change was carried out: only when the next step is due may be another time
            self._news = False
            async with self._lock:
                try:
                    # A copy: what is shown is true only when it has been carried out.
                    await self._adopt(self.roster.copy(), only_if_changed=self.trouble is None)
                    self.trouble = None
                except L4lbError as error:
                    self.trouble = str(error)
                    log("a change failed and is tried again", level=logging.ERROR, why=error)

    async def _adopt(self, roster: Roster, *, only_if_changed: bool = False) -> None:
        """Makes a roster, a copy that nobody waited with, the one that is true."""
        self._meanwhile = []
        try:
            changed = roster.settle(time.monotonic())
            if changed or not only_if_changed:
                config, ended = roster.effective_config(), list(roster.ended())
                await asyncio.to_thread(self._carry_out, config, ended, roster.withdrawn())
            # What checks said meanwhile must not be lost with the roster that they said it to. It came after
            # what was wished, so it has the last word.
            for news in self._meanwhile:
                if news(roster):
                    self._wake_for_news()
        finally:
            self._meanwhile = None
        before, self.roster = self.roster, roster
        _log_standings(before, roster)
        self.on_settled()


@contextlib.contextmanager
def _no_cycles() -> Iterator[None]:
    """A reload makes hundreds of thousands of objects, and hardly a cycle. To look for one among all that
    there is, again and again, takes half as long as the reload itself; and afterwards half a second in which
    nobody is answered. So it is looked for once, among what is new, and never again in what is then there:
    that goes when nothing names it."""
    gc.collect(_YOUNG)
    gc.disable()
    try:
        yield
    finally:
        gc.collect(_YOUNG)
        gc.freeze()
        gc.enable()


def _log_standings(before: Roster, after: Roster) -> None:
    """Says which services are something else than they were."""
    known = {service.name for service in before.config.services}
    for name in (service.name for service in after.config.services):
        was = before.standing(name) if name in known else Standing()
        now = after.standing(name)
        if (was.state, was.has_quorum) != (now.state, now.has_quorum):
            level = logging.INFO if now.state is ServiceState.UP else logging.WARNING
            log(f"service {now.state}", service=name, why=now.why, level=level)


def _names(wish: Json) -> tuple[str, str]:
    service, backend = wish.get("service"), wish.get("backend")
    if not isinstance(service, str) or not isinstance(backend, str):
        raise ConfigError("backends: the names of a service and of a backend are needed")
    return service, backend


def _flags(action: str, wish: Json) -> Iterator[bool]:
    """What is said of a backend that is disabled."""
    for name in _FLAGS:
        flag = wish.get(name, False)
        if not isinstance(flag, bool) or (flag and action != "disable"):
            raise ConfigError(f"backends {action}: {name} is true or false, and only for disable")
        yield flag


def _endpoint(text: str) -> Any:
    try:
        return parse_endpoint(text)
    except ValueError as error:
        raise ConfigError(f"backend {text}: {error}") from error


def _refuse_family(config: L4Config, service: str, backend: Backend) -> None:
    """What the configuration's own rules would refuse of a backend that is added."""
    owner = next((one for one in config.services if one.name == service), None)
    if owner is None:
        return  # the roster says that it does not know the service
    if backend.address.version != owner.listens[0].address.version and not owner.forward.is_tunnel:
        raise ConfigError(f"backend {backend.name}: is of another family than service {service}")
    if backend.port is not None and owner.forward.answers_itself:
        raise ConfigError(f"backend {backend.name}: forward {owner.forward} keeps ports; leave the port out")
    if any(listen.address == backend.address for one in config.services for listen in one.listens):
        raise ConfigError(f"backend {backend.name}: is an address that a service listens on")
    ranges = any(listen.first_port != listen.last_port for listen in owner.listens)
    if backend.port is not None and ranges:
        raise ConfigError(
            f"backend {backend.name}: service {service} has a range of ports; leave the port out"
        )
