"""The line of generations: which one comes, which is current, which leave, and how one follows another.

*Coming* from its fork until its steward says that all workers serve, *current*, then *leaving* until its last
process has ended. One that fails before it is current is taken back, and nothing has changed.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from l4lb import __version__
from l4lb.errors import L4lbError
from l4lb.net import systemd
from l4lb.net.logs import log
from l7.process.blueprint import draw, load_config, read_pems
from l7.process.channel import Json
from l7.process.children import Closable
from l7.process.difference import describe_difference
from l7.process.estate import Estate, Provision
from l7.process.generation import Generation
from l7.process.kit import Belongings

_LEAVE_TIMEOUT_S = 10.0
"""What a steward has for its last answers."""
RETRY_S = 5.0
"""After which a generation is tried again in the place of one that cannot be mended."""


@dataclass(slots=True)
class Coming:
    """A generation that is not serving yet, and who waits for it."""

    generation: Generation
    provision: Provision
    changes: list[str]
    began_s: float
    asked_by: list[int] = field(default_factory=list)
    """Numbers of the steward's requests."""


class Succession:
    """All generations. `own` is what the master itself has open, which no child is to keep."""

    def __init__(self, estate: Estate, own: Sequence[Closable]) -> None:
        self.estate = estate
        self._own = own
        self.current: Generation | None = None
        self.coming: Coming | None = None
        self.leaving: list[Generation] = []
        self.heard_s = 0.0
        """When the current steward said something last."""
        self.retry_s: float | None = None
        """When a generation is tried again, after those of the program before died."""
        self.is_stopping = False
        self._took_s: float | None = None
        """How long the current generation took, until its steward leads and it is said."""

    def generations(self) -> Iterator[Generation]:
        """All that have processes."""
        if self.coming is not None:
            yield self.coming.generation
        if self.current is not None:
            yield self.current
        yield from self.leaving

    def everything(self) -> Iterator[Closable]:
        """All that is open here."""
        yield from self._own
        yield from self.estate.everything()
        if self.coming is not None and self.coming.provision.metrics not in (None, self.estate.metrics):
            yield self.coming.provision.metrics[1]
        for generation in self.generations():
            for child in generation.children():
                yield child.channel

    def reload(self, asked: int | None = None, *, dry_run: bool = False) -> None:
        """Begins a new generation; on any error what is running goes on."""
        if self.is_stopping:
            self.answer(asked, L4lbError("the proxy is stopping"))
            return
        if self.coming is not None and not dry_run:
            self.answer(asked, L4lbError("another reload is under way; try again when it has ended"))
            return
        systemd.notify_reloading()
        try:
            self.begin(asked, dry_run=dry_run)
        except L4lbError as error:
            log("reload failed, what is running goes on", level=logging.ERROR, why=error)
            self.answer(asked, error)
            systemd.notify(READY=1)

    def begin(self, asked: int | None, *, dry_run: bool = False) -> None:
        """Reads the configuration and forks a generation of it. L4lbError, and nothing has changed."""
        began_s = time.monotonic()
        config = load_config(self.estate.config_path)
        previous = self.current.blueprint if self.current else None
        changes = describe_difference(previous.config, config) if previous else []
        if dry_run:
            read_pems(config)
            self.answer(asked, {"reloaded": False, "changes": changes})
            systemd.notify(READY=1)
            return
        estate = self.estate
        estate.last_number += 1
        blueprint = draw(config, estate.last_number, previous, estate.sessions)
        provision = estate.provide(config, blueprint.workers)
        metrics = provision.metrics[1] if provision.metrics else None
        generation = Generation(blueprint.ledger, blueprint, self.belongings(metrics))
        asked_by = [] if asked is None else [asked]
        self.coming = Coming(generation, provision, changes, began_s, asked_by)
        if blueprint.identity is not None:
            os.chown(estate.socket_path, -1, blueprint.identity.gid)
        for number in range(blueprint.workers):
            generation.fork_worker(number)
        older = [*([self.current] if self.current else []), *self.leaving]
        generation.fork_steward(older, estate.state)

    def belongings(self, metrics: socket.socket | None) -> Belongings:
        """What the processes of a generation are given."""
        estate = self.estate
        assert estate.admin is not None
        return Belongings(
            estate.config_path,
            estate.socket_path,
            estate.started_s,
            estate.sockets,
            estate.admin,
            metrics,
            self.everything,
        )

    def promote(self) -> None:
        """The coming generation serves: it is the current one, and the one before leaves."""
        coming, before = self.coming, self.current
        assert coming is not None and coming.generation.blueprint is not None
        self.coming, self.current = None, coming.generation
        self.heard_s = time.monotonic()
        self.retry_s = None
        took_s = self._took_s = round(self.heard_s - coming.began_s, 3)
        # First: the workers that leave look whether their sockets are given up.
        self.estate.settle(coming.provision, coming.generation.blueprint)
        if before is not None:
            before.due.clear()
            before.signal_workers(signal.SIGQUIT)
            answer = {
                "reloaded": True,
                "generation": coming.generation.number,
                "seconds": took_s,
                "changes": coming.changes,
            }
            before.tell_steward({"do": "leave"})
            before.last_words = {"do": "retire", "ids": coming.asked_by, "answer": answer}
            before.steward_until_s = self.heard_s + _LEAVE_TIMEOUT_S
            self.leaving.append(before)
        self.current.tell_steward({"do": "lead", "state": self.estate.state})
        self.carry_counts()
        self.tell_of_children()

    def on_lead(self) -> None:
        """The current steward serves its sockets: only now all is as the file has it, and that is said."""
        if self.current is None or self.current.blueprint is None or self._took_s is None:
            return
        config = self.current.blueprint.config
        log(
            "serving",
            generation=self.current.number,
            listeners=len(config.listeners),
            routes=len(config.routes),
            workers=self.current.blueprint.workers,
            seconds=self._took_s,
            version=__version__,
        )
        self._took_s = None
        systemd.notify(READY=1, STATUS=f"generation {self.current.number}, {len(config.routes)} routes")
        for generation in self.leaving:
            if generation.last_words is not None:
                generation.tell_steward(generation.last_words)
                generation.last_words = None

    def take_back(self, why: str) -> None:
        """The coming generation is of no use: its processes end, its sockets are closed."""
        coming = self.coming
        assert coming is not None
        coming.generation.signal_all(signal.SIGKILL)
        for child in coming.generation.children():
            os.waitpid(child.pid, 0)
        coming.generation.close()
        self.coming = None
        if coming.generation.blueprint is not None:
            self.estate.take_back(coming.provision, coming.generation.blueprint)
        error = L4lbError(f"the new workers did not start: {why}")
        if self.current is None:
            raise error
        if not self.current.blueprint:
            self.retry_s = time.monotonic() + RETRY_S
        log("reload failed, what is running goes on", level=logging.ERROR, why=error)
        for asked in coming.asked_by:
            self.answer(asked, error)
        self.carry_counts()
        systemd.notify(READY=1)

    def answer(self, asked: int | None, answer: Json | L4lbError) -> None:
        """Answers a request of the current steward; a signal gets its answer in the log."""
        if asked is None or self.current is None:
            return
        if isinstance(answer, L4lbError):
            answer = {"error": str(answer), "exit_code": answer.exit_code}
        self.current.tell_steward({"do": "answer", "id": asked, "answer": answer})

    def carry_counts(self) -> None:
        """Has the counts of generations that have ended carried over to the current one.

        The steward does it and says `carried`, so that nothing is ever counted twice or not at all. Not while
        a generation comes: its steward has the counts of all that were there when it was forked.
        """
        if self.coming is not None or self.current is None or self.current.steward is None:
            return
        for generation in self.leaving:
            if generation.is_empty and not generation.is_carried:
                generation.is_carried = True
                log("generation has ended", generation=generation.number)
                self.current.tell_steward({"do": "carry", "generation": generation.number})

    def tell_of_children(self) -> None:
        """Lets the steward know which processes there are."""
        if self.current is not None:
            rows = [generation.describe() for generation in self.generations()]
            message = {"do": "children", "generations": rows, "restarts": self.estate.restarts}
            self.current.tell_steward(message)
