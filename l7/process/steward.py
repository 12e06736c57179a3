"""The steward: all that is not about one connection. It checks backends, looks up names, watches
certificates, answers operators, and tells the workers.

It begins by telling the workers of its generation all that they have to know, and to serve; when they do it
says so to the master. Only then, when the master tells it to lead, it checks, watches and answers, and says
that, too: the steward before it has stopped to act by then, and ends when it has answered its last. After
every change the master is told what the steward knows, for whoever comes after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Iterator
from typing import Any

from aiohttp import web

from l4lb import __version__
from l4lb.errors import CapabilityError, ConfigError, L4lbError
from l4lb.net.logs import log
from l4lb.net.metrics import read_cost
from l7.process import views
from l7.process.admin import serve_admin, serve_metrics
from l7.process.certificates import Certificates, replace_certificates
from l7.process.channel import Channel, Json
from l7.process.children import unblock_signals
from l7.process.counts import Counts, count, spare_label
from l7.process.explain import explain
from l7.process.exposition import Cost, render_metrics
from l7.process.kit import StewardKit
from l7.process.links import Link, Links, Wire
from l7.process.names import Names
from l7.process.operator import Operator
from l7.process.roster import Key, Roster
from l7.process.watch import Watch
from l7.routing.router import Router

_BEAT_S = 1.0
_ASK_EVERY = 5
"""Every so many beats the workers are asked whether they are there."""
_RELOAD_TIMEOUT_S = 60.0
_ERRORS = {error.exit_code: error for error in (L4lbError, ConfigError, CapabilityError)}


def steer(kit: StewardKit) -> int:
    """The life of a steward process; its exit code."""
    gc.freeze()
    asyncio.run(_Steward(kit).run())
    return 0


class _Steward:
    def __init__(self, kit: StewardKit) -> None:
        self._kit = kit
        self._blueprint = kit.blueprint
        self._older = list(kit.older)
        self._roster = Roster(kit.blueprint.config)
        if kit.state is not None:
            self._roster.restore(kit.state)
        self._router = Router(kit.blueprint.config.routes)
        self._names = Names(self._roster, self._on_names)
        self._watch = Watch(self._roster, self._names, self._on_checked)
        self._operator = Operator(self._roster)
        self._certificates = Certificates(kit.blueprint, self._ask_for_certificates)
        self._end = asyncio.Event()
        self._has_left = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._runners: list[web.AppRunner] = []
        self._asked: dict[int, asyncio.Future[Json]] = {}
        self._numbers = itertools.count(1)
        self._generations: list[Json] = []
        self._restarts = 0
        self._is_ready = False
        self._leads = False
        self._is_stopping = False
        self._state_is_old = False

    # Life ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._end.set)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the master decides
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        unblock_signals()
        self._master = Wire(self._kit.channel, self._on_master, lambda _: self._end.set())
        self._links = Links(self._on_event)
        for end in self._kit.workers:
            self._links.add(end.generation, end.number, end.pid, end.channel)
        self._spawn(self._beat())
        await self._names.find_all()
        self._refresh_endpoints()
        for link in self._links.of(self._blueprint.number):
            self._welcome(link)
        await self._end.wait()
        await self._close()

    def _welcome(self, link: Link) -> None:
        """Tells a worker everything, and to serve."""
        self._links.tell(link, [*self._roster.all_messages(), {"do": "serve"}])

    async def _lead(self) -> None:
        """From now on this steward is the one that acts."""
        if self._leads:
            return
        self._leads = True
        belongings = self._kit.belongings
        self._runners.append(await serve_admin(self, belongings.admin))
        if belongings.metrics is not None:
            self._runners.append(await serve_metrics(self.metrics, belongings.metrics))
        self._names.follow()
        self._watch.begin()
        self._spawn(self._certificates.run())
        self._master.send({"say": "leads"})

    async def _leave(self) -> None:
        """Another steward is about to lead: stops to act. Who comes now is its to answer."""
        self._names.close()
        await self._watch.close()
        for runner in self._runners:
            for site in list(runner.sites):
                await site.stop()
        self._has_left.set()

    async def _retire(self, ids: list[int], answer: Json) -> None:
        """The other steward leads and serves: answers those who asked for it, and ends."""
        await self._has_left.wait()
        for number in ids:
            self._settle(number, answer)
        self._end.set()

    async def _close(self) -> None:
        self._names.close()
        await self._watch.close()
        for task in self._tasks:
            task.cancel()
        for runner in self._runners:
            await runner.cleanup()

    def _spawn(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            await work

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        """What a steward does must not end unnoticed: then it ends as a whole, and is replaced."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise SystemExit(1) from error

    async def _beat(self) -> None:
        """Shows the master that it lives, and finds workers that do not."""
        for beat in itertools.count():
            self._master.send({"say": "alive"})
            if self._state_is_old:
                self._hand_on()
            if beat % _ASK_EVERY == 0:
                for link in self._links:
                    if link.serves:
                        self._spawn(self._look_at(link))
                for link in self._links.silent(time.monotonic()):
                    log("worker is hung and is replaced", pid=link.pid, worker=link.number)
                    self._master.send({"say": "hung", "pid": link.pid})
            await asyncio.sleep(_BEAT_S)

    async def _look_at(self, link: Link) -> None:
        try:
            await self._links.ask(link, "describe")
        except L4lbError:
            return  # `silent` counts from when it was heard last

    # The master ------------------------------------------------------------------------------------

    def _on_master(self, message: Json, descriptors: list[int]) -> None:
        match message:
            case {"do": "lead"}:
                if message.get("state") and not self._leads:
                    # What the one before has learned while this one came to be.
                    self._roster.restore(message["state"])
                    self._refresh_endpoints()
                    messages = list(self._roster.all_messages())
                    self._links.tell_all(self._blueprint.number, messages)
                self._spawn(self._lead())
            case {"do": "leave"}:
                self._spawn(self._leave())
            case {"do": "retire", "ids": ids, "answer": answer}:
                self._spawn(self._retire(ids, answer))
            case {"do": "answer", "id": number, "answer": answer}:
                self._settle(number, answer)
            case {"do": "worker", "generation": generation, "number": number, "pid": pid}:
                channel = Channel(socket.socket(fileno=descriptors[0]))
                self._welcome(self._links.add(generation, number, pid, channel))
            case {"do": "children", "generations": generations, "restarts": restarts}:
                self._generations, self._restarts = generations, restarts
            case {"do": "carry", "generation": number}:
                self._carry(number)
            case {"do": "certificates", "listeners": listeners}:
                replace_certificates(self._blueprint, listeners)
                self._links.tell_all(self._blueprint.number, [message])
                log("certificates are replaced", certificates=sum(1 for _ in self.certificates()))
            case {"do": "stopping"}:
                self._is_stopping = True

    def _settle(self, number: int, answer: Json) -> None:
        waiting = self._asked.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _carry(self, number: int) -> None:
        """The workers of an older generation have gone: what they counted goes over into this one."""
        for old in [one for one in self._older if one.number == number]:
            old.carry_to(self._blueprint.ledger)
            self._older.remove(old)
        self._master.send({"say": "carried", "generation": number})

    def _hand_on(self) -> None:
        """Tells the master what is known."""
        self._state_is_old = False
        self._master.send({"say": "state", "state": self._roster.dump()})

    def _ask_for_certificates(self) -> None:
        self._master.send({"ask": "certificates"})

    # Workers ---------------------------------------------------------------------------------------

    def _on_event(self, link: Link, message: Json) -> None:
        match message:
            case {"event": "serving"}:
                link.serves = True
                own = self._links.of(self._blueprint.number)
                if not self._is_ready and len(own) == self._blueprint.workers and all(w.serves for w in own):
                    self._is_ready = True
                    self._master.send({"say": "ready"})
            case {"event": "ejected" | "returned" as event, "pool": pool, "backend": backend}:
                member = self._roster.find((pool, backend))
                why = str(message.get("why", ""))
                log(f"backend {event}", pool=pool, backend=backend, worker=link.number, why=why)
                if member is not None and event == "ejected":
                    member.ejections[link.pid] = why, float(message["until_s"])
                    self._state_is_old = True
                elif member is not None:
                    member.ejections.pop(link.pid, None)
            case {"event": "gone"}:
                for member in self._roster.members():
                    member.ejections.pop(link.pid, None)

    def _tell_of(self, key: Key) -> None:
        member = self._roster.find(key)
        if member is not None:
            self._links.tell_all(self._blueprint.number, member.messages())
        self._state_is_old = True

    def _on_names(self, key: Key) -> None:
        self._refresh_endpoints()
        self._tell_of(key)
        self._watch.follow()

    def _on_checked(self, key: Key) -> None:
        member = self._roster.find(key)
        if member is None:
            return
        member.endpoints = self._watch.endpoints(member)
        self._tell_of(key)
        level = logging.INFO if member.up else logging.WARNING
        log(f"backend {member.state}", pool=key[0], backend=key[1], why=member.why, level=level)

    def _refresh_endpoints(self) -> None:
        for member in self._roster.members():
            member.endpoints = self._watch.endpoints(member)

    # Answers ---------------------------------------------------------------------------------------

    def _counts(self) -> Counts:
        spares = {
            (member.pool, spare_label(member.spare)): member.backend.name
            for member in self._roster.members()
            if member.spare is not None
        }
        return count([self._blueprint.ledger, *self._older], spares)

    async def status(self) -> Json:
        """See `Answering`."""
        return {
            **self._brief_status(),
            "counters": views.status_counters(self._counts()),
            "workers": [row async for row in self._worker_rows()],
        }

    def _brief_status(self) -> Json:
        config = self._blueprint.config
        return {
            "ready": self._leads and not self._is_stopping,
            "version": __version__,
            "pid": os.getppid(),
            "steward_pid": os.getpid(),
            "config": str(self._kit.belongings.config_path),
            "generation": self._blueprint.number,
            "leaving_generations": [row["generation"] for row in self._generations[1:]],
            "restarts": self._restarts,
            "uptime_s": round(time.monotonic() - self._kit.belongings.started_s, 1),
            "listeners": len(config.listeners),
            "routes": len(config.routes),
            "pools": len(config.pools),
        }

    async def _worker_rows(self) -> Any:
        links = list(self._links)
        answers = await asyncio.gather(
            *(self._links.ask(link, "describe") for link in links), return_exceptions=True
        )
        for link, answer in zip(links, answers, strict=True):
            is_own = link.generation == self._blueprint.number
            state = ("serving" if link.serves else "starting") if is_own else "leaving"
            known = {"worker": link.number, "generation": link.generation, "pid": link.pid, "state": state}
            yield {**(answer if isinstance(answer, dict) else {"why": str(answer)}), **known}

    def backends(self) -> Iterator[Json]:
        """See `Answering`."""
        return views.backend_rows(self._roster, self._counts())

    def routes(self) -> Iterator[Json]:
        """See `Answering`."""
        return views.route_rows(self._router, self._counts())

    def certificates(self) -> Iterator[Json]:
        """See `Answering`."""
        return self._certificates.rows()

    def metrics(self) -> str:
        """See `Answering`."""
        counts = self._counts()
        status = {**self._brief_status(), "workers": [link for link in self._links if link.serves]}
        backends = views.backend_rows(self._roster, counts)
        return render_metrics(counts, backends, status, self.certificates(), self._costs())

    def _costs(self) -> Iterator[Cost]:
        processes = [("master", os.getppid()), ("steward", os.getpid())]
        processes += [(f"worker {link.number}", link.pid) for link in self._links]
        for name, pid in processes:
            with contextlib.suppress(OSError):  # it may have ended just now
                yield Cost(name, pid, *read_cost(pid))

    def explain(self, wish: Json) -> Json:
        """See `Answering`."""
        sessions = {name: bytes(memory.content) for name, memory in self._blueprint.sessions.items()}
        return explain(self._roster, self._blueprint.secret, wish, sessions)

    # Changes ---------------------------------------------------------------------------------------

    async def reload(self, *, dry_run: bool) -> Json:
        """See `Answering`."""
        number = next(self._numbers)
        waiting: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._asked[number] = waiting
        if self._state_is_old:
            self._hand_on()
        self._master.send({"ask": "reload", "id": number, "dry_run": dry_run})
        try:
            answer = await asyncio.wait_for(waiting, _RELOAD_TIMEOUT_S)
        except TimeoutError:
            raise L4lbError(f"the master did not answer within {_RELOAD_TIMEOUT_S:g} s") from None
        finally:
            self._asked.pop(number, None)
        if "error" in answer:
            raise _ERRORS.get(answer["exit_code"], L4lbError)(answer["error"])
        return answer

    async def change_backend(self, action: str, wish: Json) -> Json:
        """See `Answering`."""
        key, messages = self._operator.change(action, wish, time.monotonic())
        self._refresh_endpoints()
        self._links.tell_all(self._blueprint.number, messages)
        self._tell_of(key)
        self._names.follow()
        self._watch.follow()
        self._hand_on()
        log(f"backend {action}", pool=key[0], backend=key[1], by="operator")
        return {"action": action, "pool": key[0], "backend": key[1]}
