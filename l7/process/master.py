"""The master: forks steward and workers, waits for signals and for what they say, and replaces what dies.

It has no threads and no event loop, for it forks at any time; it waits in `poll` alone. It parses nothing
that comes from the network.

| signal  | does |
|---------|------|
| SIGHUP  | reload: new workers take the listening sockets over, the old ones end what they have |
| SIGTERM | stop: no new connections, requests are answered, within `shutdown_s`; twice: at once |
| SIGINT  | stop at once |
| SIGUSR1 | access logs are opened again, for those who rotate them |
| SIGUSR2 | the program is executed anew in this process, then as a reload |

How one generation follows another is `succession`'s; this is the loop around it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import time
from collections import deque
from pathlib import Path

from l4lb import __version__
from l4lb.errors import L4lbError
from l4lb.net import systemd
from l4lb.net.handover import Luggage, receive_luggage, replace_program, try_program
from l4lb.net.logs import log
from l7.process.blueprint import load_config, read_pems
from l7.process.certificates import pack_pems
from l7.process.channel import Channel, ChannelClosedError, Json
from l7.process.children import CAUGHT, Child, describe_end
from l7.process.estate import Estate
from l7.process.generation import Generation
from l7.process.inheritance import descriptors_of, dump_generation, load_generation
from l7.process.privileges import raise_open_files
from l7.process.succession import RETRY_S, Succession

_START_TIMEOUT_S = 30.0
"""How long a coming generation may take until it serves."""
_SILENCE_S = 30.0
"""A steward that has said nothing for so long is killed and replaced."""
_HEARTBEAT_S = 5.0
_GRACE_S = 2.0
"""Beyond `shutdown_s`: then workers are killed."""


class Master:
    """One running proxy. `run` returns when it has stopped."""

    def __init__(self, config_path: Path, socket_path: Path) -> None:
        self._estate = Estate(config_path, socket_path)
        self._wake, self._waker = socket.socketpair()
        self._signals: deque[int] = deque()
        self._line = Succession(self._estate, (self._wake, self._waker))
        self._kill_s: float | None = None
        """Stopping: when what is left is killed."""

    # Life ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serves until a signal ends it. L4lbError where it cannot begin; then nothing is left behind."""
        self._catch_signals()
        raise_open_files()
        try:
            luggage = receive_luggage()
            if luggage is None:
                self._estate.open_admin()
                self._line.begin(None)
            else:
                self._take_over(luggage)
            while not self._has_ended():
                self._turn()
        finally:
            self._clean_up()

    def _catch_signals(self) -> None:
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in CAUGHT:
            signal.signal(number, lambda number, _: self._signals.append(number))
        # A program that took over was started with them blocked.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)

    def _has_ended(self) -> bool:
        return self._kill_s is not None and not any(one.workers for one in self._line.generations())

    def _clean_up(self) -> None:
        for generation in self._line.generations():
            generation.signal_all(signal.SIGKILL)
            for child in generation.children():
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(child.pid, 0)
            generation.close()
        self._estate.close()
        signal.set_wakeup_fd(-1)

    # Turning ---------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Waits for something to happen, and sees to it."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        channels: dict[int, tuple[Generation, Channel]] = {}
        for generation in self._line.generations():
            if generation.steward is not None and not generation.steward.is_lost:
                channel = generation.steward.channel
                channels[channel.fileno()] = generation, channel
                poll.register(channel, select.POLLIN | (select.POLLOUT if channel.is_waiting else 0))
        for descriptor, events in poll.poll(self._pause_s() * 1000):
            if descriptor == self._wake.fileno():
                with contextlib.suppress(BlockingIOError):
                    self._wake.recv(4096)
                continue
            generation, channel = channels[descriptor]
            try:
                if events & select.POLLOUT:
                    channel.flush()
                if events & ~select.POLLOUT:
                    for message, _ in channel.receive():
                        self._hear(generation, message)
            except ChannelClosedError:
                if generation.steward is not None:
                    # It is about to end; should it not, it is silent, and is killed for that.
                    generation.steward.is_lost = True
        while self._signals:
            self._on_signal(self._signals.popleft())
        self._reap()
        self._look_at_clock()

    def _pause_s(self) -> float:
        """Seconds until something is due by time."""
        due = [self._line.heard_s + _SILENCE_S, time.monotonic() + _HEARTBEAT_S]
        if self._line.coming is not None:
            due.append(self._line.coming.began_s + _START_TIMEOUT_S)
        due += [when for when in (self._line.retry_s, self._kill_s) if when is not None]
        if self._line.current is not None:
            due += [when for when, _, _ in self._line.current.due]
        pause_s = min(due) - time.monotonic()
        interval_s = systemd.watchdog_interval_s()
        return max(0.0, min(pause_s, interval_s) if interval_s else pause_s)

    def _look_at_clock(self) -> None:
        now_s = time.monotonic()
        current, coming = self._line.current, self._line.coming
        if coming is not None and now_s >= coming.began_s + _START_TIMEOUT_S:
            self._line.take_back(f"its workers did not serve within {_START_TIMEOUT_S:g} s")
        if self._kill_s is not None and now_s >= self._kill_s:
            for generation in self._line.generations():
                generation.signal_workers(signal.SIGKILL)
            self._kill_s = now_s + _GRACE_S
        if self._line.retry_s is not None and now_s >= self._line.retry_s and self._line.coming is None:
            self._line.retry_s = None
            self._line.reload()
        if current is not None and current.steward is not None and now_s >= self._line.heard_s + _SILENCE_S:
            log("the steward is silent and is replaced", level=logging.ERROR, pid=current.steward.pid)
            os.kill(current.steward.pid, signal.SIGKILL)
            self._line.heard_s = now_s
        elif now_s < self._line.heard_s + _SILENCE_S:
            systemd.notify(WATCHDOG=1)
        for generation in self._line.leaving:
            if generation.steward is not None and now_s >= generation.steward_until_s:
                os.kill(generation.steward.pid, signal.SIGKILL)
        if current is not None and self._kill_s is None:
            self._restart(current, now_s)

    # Signals ---------------------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        match number:
            case signal.SIGHUP:
                self._line.reload()
            case signal.SIGUSR1:
                for generation in self._line.generations():
                    generation.signal_workers(signal.SIGUSR1)
            case signal.SIGUSR2:
                self._replace()
            case signal.SIGTERM if self._kill_s is None:
                self._stop()
            case signal.SIGTERM | signal.SIGINT | signal.SIGQUIT:
                self._stop(at_once=True)

    def _stop(self, *, at_once: bool = False) -> None:
        """Lets workers end what they have, or ends them."""
        systemd.notify(STOPPING=1)
        if self._line.coming is not None and self._line.current is not None:
            self._line.take_back("the proxy stops")
        blueprint = self._line.current.blueprint if self._line.current else None
        within_s = 0.0 if at_once or blueprint is None else blueprint.config.shutdown_s
        self._kill_s = time.monotonic() + within_s + _GRACE_S
        self._line.retry_s = None
        self._line.is_stopping = True
        log("stopping", within_s=within_s)
        self._estate.sockets.close()
        for generation in self._line.generations():
            generation.due.clear()
            generation.signal_workers(signal.SIGINT if at_once else signal.SIGTERM)
            generation.tell_steward({"do": "stopping"})

    # Messages --------------------------------------------------------------------------------------

    def _hear(self, generation: Generation, message: Json) -> None:
        """Takes what a steward says."""
        is_coming = self._line.coming is not None and generation is self._line.coming.generation
        if generation is self._line.current:
            self._line.heard_s = time.monotonic()
        match message:
            case {"say": "ready"} if is_coming:
                self._line.promote()
            case {"say": "leads"} if generation is self._line.current:
                self._line.on_lead()
            case {"say": "failed", "why": why} if is_coming:
                self._line.take_back(str(why))
            case {"say": "state", "state": state} if generation is self._line.current:
                self._estate.state = state
            case {"say": "carried", "generation": number}:
                self._line.leaving = [one for one in self._line.leaving if one.number != number]
                self._line.tell_of_children()
            case {"say": "hung", "pid": pid}:
                if any(
                    child.pid == pid for one in self._line.generations() for child in one.workers.values()
                ):
                    os.kill(int(pid), signal.SIGKILL)
            case {"ask": "reload", "id": asked}:
                self._line.reload(int(asked), dry_run=bool(message.get("dry_run")))
            case {"ask": "certificates"}:
                self._read_certificates(generation)

    def _read_certificates(self, generation: Generation) -> None:
        """Reads the certificates again, here where the keys may be read, and hands them on."""
        blueprint = generation.blueprint
        if blueprint is None:
            return
        try:
            pems = read_pems(blueprint.config)
            for listener, store in blueprint.stores.items():
                store.replace(pems[listener])
        except L4lbError as error:
            log("certificates could not be read, the old ones stay", level=logging.ERROR, why=error)
            return
        generation.tell_steward({"do": "certificates", "listeners": pack_pems(pems)})

    # Children --------------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Takes leave of every child that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for generation in list(self._line.generations()):
                child = next((one for one in generation.children() if one.pid == pid), None)
                if child is not None:
                    self._bury(generation, child, pid, status)
                    break

    def _bury(self, generation: Generation, child: Child, pid: int, status: int) -> None:
        is_steward = child is generation.steward
        who = "steward" if is_steward else f"worker {child.number}"
        generation.remove(pid)
        how = describe_end(status)
        if self._line.coming is not None and generation is self._line.coming.generation:
            log(f"{who} ended", level=logging.ERROR, pid=pid, generation=generation.number, how=how)
            self._line.take_back(f"{who} ended before it served: {how}; see the log")
        elif generation in self._line.leaving:
            log(f"{who} has ended", pid=pid, generation=generation.number)
            self._line.carry_counts()
        elif self._kill_s is not None:
            log(f"{who} has ended", pid=pid)
        elif generation.blueprint is None:
            log(f"{who} ended", level=logging.ERROR, pid=pid, how=how)
            self._line.retry_s = self._line.retry_s or time.monotonic() + RETRY_S
        else:
            self._estate.restarts += 1
            delay_s = generation.plan_restart(child, None if is_steward else child.number)
            log(f"{who} ended and is replaced", level=logging.ERROR, pid=pid, how=how, in_s=delay_s)
        self._line.tell_of_children()

    def _restart(self, generation: Generation, now_s: float) -> None:
        """Starts again what is due."""
        due = [entry for entry in generation.due if entry[0] <= now_s]
        generation.due = [entry for entry in generation.due if entry[0] > now_s]
        for _, number, failures in due:
            if number is None:
                self._line.heard_s = now_s
                for leaving in self._line.leaving:
                    leaving.is_carried = False  # the one before has not said so
                child = generation.fork_steward(self._line.leaving, self._estate.state, failures)
                generation.tell_steward({"do": "lead"})
                self._line.carry_counts()
            else:
                child = generation.fork_worker(number, failures)
                words = {"generation": generation.number, "number": number, "pid": child.pid}
                generation.tell_steward({"do": "worker", **words}, [child.channel.fileno()])
            log("worker started" if number is not None else "steward started", pid=child.pid)
            self._line.tell_of_children()

    # Replacing the program -------------------------------------------------------------------------

    def _replace(self) -> None:
        """Executes the program anew in this process; what is running goes on meanwhile."""
        if self._line.coming is not None or self._kill_s is not None:
            log("replacement refused: a reload or a stop is under way", level=logging.ERROR)
            return
        systemd.notify_reloading()
        try:
            load_config(self._estate.config_path)
            try_program("check", "--config", str(self._estate.config_path))
            signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
            replace_program(self._pack())
        except (L4lbError, OSError) as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
            log("replacement failed, what is running goes on", level=logging.ERROR, why=error)
            systemd.notify(READY=1)

    def _pack(self) -> Luggage:
        """What the new program needs to know of this one."""
        generations = list(self._line.generations())
        state = {
            "estate": self._estate.dump(),
            "generations": [dump_generation(generation) for generation in generations],
        }
        descriptors = self._estate.descriptors()
        for generation in generations:
            descriptors |= descriptors_of(generation)
        return Luggage(state, descriptors, {})

    def _take_over(self, luggage: Luggage) -> None:
        """Goes on where the program before stopped: its processes are children of this one."""
        estate = self._estate
        estate.adopt(luggage.state["estate"], luggage.descriptors)
        belongings = self._line.belongings(estate.metrics[1] if estate.metrics else None)
        self._line.current, *self._line.leaving = (
            load_generation(dumped, luggage.descriptors, belongings)
            for dumped in luggage.state["generations"]
        )
        self._line.heard_s = time.monotonic()
        log("replaced", version=__version__, generation=self._line.current.number)
        self._line.reload()
