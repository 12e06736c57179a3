"""The daemon: puts configuration, rules, workers and the admin socket together, and takes them apart.

Start: queues are bound and workers serve before any rule sends them a packet. Stop: rules first stop
sending, the queues run empty, then everything is put back. A reload changes the kernel's elements before the
workers' table, so that no packet carries a mark that the kernel does not know.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path

from l4lb import __version__
from l4lb.cli import views
from l4lb.cli.assembly import learning_rules, machine_key, make_designer
from l4lb.cli.configfile import ConfigFile
from l4lb.cli.decisions import decide_packets
from l4lb.cli.flowviews import FlowPage, count_flows, flow_page
from l4lb.cli.keeper import Keeper
from l4lb.cli.kernelcounts import read_kernel_counts
from l4lb.cli.watch import Watch
from l4lb.control.design import Design, Designer, addresses_to_reach, fixed_differences
from l4lb.control.member import Key
from l4lb.control.prometheus import render_metrics
from l4lb.control.rule_plan import ICMP_QUEUE_CHAIN
from l4lb.control.ruleset import TABLE, render_change, render_drain, render_forget_flows, render_install
from l4lb.control.slots import SlotRegistry
from l4lb.control.state import dump_state, load_state
from l4lb.dataplane.table import forward_mark, learned_slots
from l4lb.errors import ConfigError, L4lbError
from l4lb.model import Address, Datapath, L4Config, OnDown
from l4lb.net import nft, systemd
from l4lb.net.admin import AdminServer
from l4lb.net.crew import Crew, plan_crew
from l4lb.net.fastpath import FastPath, remove_fast_path
from l4lb.net.fragments import read_reassembly
from l4lb.net.handover import Luggage, receive_luggage, replace_program, try_program
from l4lb.net.host import HostNeeds, prepare_host, restore_host
from l4lb.net.journal import Journal, journal_path
from l4lb.net.lock import RunLock, lock_path
from l4lb.net.logs import log
from l4lb.net.metrics import MetricsSite, read_process
from l4lb.net.privilege import demand_net_admin
from l4lb.net.probe import choose_datapath, probe_host
from l4lb.net.routes import find_paths
from l4lb.net.slowpath import SlowPath
from l4lb.net.userscheduler import Schedulers
from l4lb.net.worker import Worker

_EXPIRE_EVERY_S = 0.25
"""A twentieth of the flows is looked at each time: all in 5 s."""


class Daemon:
    """One running balancer. `start`, `serve` until a signal, `stop`."""

    def __init__(self, config_path: Path, socket_path: Path) -> None:
        self.config_path = config_path
        self.socket_path = socket_path
        self.started = time.monotonic()
        self.failures: list[str] = []
        self.datapath = Datapath.AUTO
        self._schedulers = Schedulers()
        self._file = ConfigFile(config_path, self._schedulers)
        self.first_config = self._file.load()
        self._lock = RunLock(lock_path(socket_path))
        self._journal: Journal | None = None
        self._admin = AdminServer(self, socket_path)
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._designer: Designer | None = None
        self._crew: Crew | None = None
        self._slow_path: SlowPath | None = None
        self._fast_path: FastPath | None = None
        self._design: Design | None = None
        self._keeper = Keeper(self.first_config, self.carry_out)
        self._watch = Watch(self._keeper, self._take_beginnings, self._mark_of)
        self._metrics = MetricsSite(self.metrics)
        self._installed = False

    @property
    def design(self) -> Design:
        """What is true now."""
        assert self._design is not None
        return self._design

    @property
    def config(self) -> L4Config:
        """The configuration that is running."""
        return self.design.config

    @property
    def workers(self) -> list[Worker]:
        """A worker for each part of the flows."""
        return self._crew.workers if self._crew is not None else []

    # Life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Brings everything up, in an order in which no packet is lost to a half-made state.

        Whatever fails, what was done before is undone and the error is raised.
        """
        demand_net_admin()
        luggage = receive_luggage()
        if luggage is not None:
            self._take_over(luggage)
            return
        self._lock.acquire()
        try:
            config = self._keeper.roster.effective_config()
            key = config.hash_key or machine_key()
            host = probe_host()
            self.datapath = choose_datapath(host, config.datapath)
            self._journal = Journal(journal_path(self.socket_path))
            self._designer = make_designer(config, self.datapath, host, key, self._schedulers)
            self._design = self._designer.design(
                config,
                SlotRegistry(),
                find_paths(addresses_to_reach(config)),
                flows_of=lambda slot: 0,
                withdrawn=self._keeper.roster.withdrawn(),
            )
            plan = self._designer.plan
            self._crew = Crew(
                plan_crew(config, self.datapath, plan.workers), key, views.now_ms, self._worker_failed
            )
            # A killed run's rules still queue. A worker that served them would see its packets go through
            # both sets of rules; so then the rules come first, and the kernel drops until it is there.
            takeover = nft.table_exists(TABLE)
            if not takeover:
                self._start_workers()
            prepare_host(self._journal, self._needs(self._design))
            # From here on the table is ours to delete: before, it may be one that a killed run left.
            self._installed = True
            remove_fast_path()  # a killed run's goes on by that run's numbers
            nft.run_nft(render_install(self._design.rules))
            if not plan.native_queue:
                nft.add_queue_rules(TABLE, plan.queues())
            if self.datapath is Datapath.OFFLOAD:
                nft.add_learning_rules(TABLE, learning_rules())
            if takeover:
                self._start_workers()
            self._start_fast_path()
        except BaseException:
            self.stop()
            raise
        log(
            "balancing",
            datapath=self.datapath,
            workers=len(self.workers),
            services=len(config.services),
            start_ms=round((time.monotonic() - self.started) * 1000),
        )

    async def serve(self) -> None:
        """Answers the admin socket and signals until SIGTERM or SIGINT, or until a worker fails."""
        loop = asyncio.get_running_loop()

        def stop(*_: object) -> None:
            # Not by the loop's own handlers: they go with it, and a second signal would then kill what
            # cleans up.
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                loop.call_soon_threadsafe(self._stopping.set)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        loop.add_signal_handler(signal.SIGHUP, self._by_signal, self.reload, "reload")
        loop.add_signal_handler(signal.SIGUSR2, self._by_signal, self.replace, "replacement")
        await self._admin.start()
        await self._metrics.move(self.first_config.metrics)
        for work in (self._expire(), self._keeper.follow(), self._watch.run(), systemd.feed_watchdog()):
            task = loop.create_task(work)
            task.add_done_callback(self._work_ended)
            self._tasks.append(task)
        log("ready", socket=self.socket_path)
        systemd.notify(READY=1, STATUS=f"balancing {len(self.config.services)} services by {self.datapath}")
        try:
            await self._stopping.wait()
        finally:
            systemd.notify(STOPPING=1)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._admin.stop()
            await self._metrics.stop()
        if self.failures:
            raise L4lbError("; ".join(self.failures))

    def stop(self) -> None:
        """Puts the host back as it was. Safe at any point of `start`, and more than once."""
        if self._journal is not None:
            installed = self._installed and nft.table_exists(TABLE)
            if installed and self._crew is not None:
                nft.run_nft(render_drain(self.design.rules))
                self._crew.wait_for_empty_queues()
            for line in restore_host(self._journal):
                log(line)
            if self._fast_path is not None:
                self._fast_path.stop()
                self._fast_path = None
            if installed:
                nft.delete_table(TABLE)
            self._journal = None
        if self._slow_path is not None:
            self._slow_path.stop()
            self._slow_path = None
        if self._crew is not None:
            self._crew.stop()
        self._lock.release()

    def _start_workers(self) -> None:
        assert self._crew is not None
        self._crew.start(self.design.table)
        self._start_slow_path()

    def _start_slow_path(self) -> None:
        assert self._designer is not None
        self._slow_path = SlowPath(
            self._designer.plan.queues()[ICMP_QUEUE_CHAIN],
            table=lambda: self.design.table,
            workers=lambda: self.workers,
            key=self._designer.key,
            on_failure=self._worker_failed,
        )
        self._slow_path.start()

    def _start_fast_path(self, *, keep: bool = False) -> None:
        assert self._designer is not None
        plan = self._designer.plan
        if plan.fast_path:
            self._fast_path = FastPath(plan.learned_size)
            self._fast_path.start(self.design, keep=keep)

    def _needs(self, design: Design) -> HostNeeds:
        config = design.config
        return HostNeeds(design.vips, config.vip_interface, design.neighbours, design.withdrawn)

    def _worker_failed(self, why: str) -> None:
        """Called in the worker's thread: without its worker a queue eats packets, so the daemon ends."""
        self.failures.append(why)
        log("worker failed", level=logging.ERROR, why=why)
        os.kill(os.getpid(), signal.SIGTERM)

    def _work_ended(self, task: asyncio.Task[None]) -> None:
        """What keeps the daemon true must not end unnoticed: then the daemon ends, to be started anew."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(f"{task.get_coro()}: {error!r}")
            log("background work failed", level=logging.ERROR, why=repr(error))
            self._stopping.set()

    async def _expire(self) -> None:
        """Removes expired flows, a slice of every table at a time."""
        assert self._crew is not None
        while True:
            await asyncio.sleep(_EXPIRE_EVERY_S)
            self._crew.expire()
            for service, failures, trouble in self._schedulers.complaints(time.monotonic()):
                log(
                    "the scheduler failed",
                    level=logging.WARNING,
                    service=service,
                    times=failures,
                    why=trouble,
                )

    # Changing --------------------------------------------------------------------------------------

    async def reload(self, *, dry_run: bool = False) -> views.Json:
        """Reads the configuration again and changes what differs; on any error the old one goes on."""
        systemd.notify_reloading()
        try:
            answer = await self._keeper.reload(self._load_again, dry_run=dry_run)
            # Not before: what is balanced does not depend on who may look.
            await self._metrics.move(self._keeper.roster.config.metrics)
            return answer
        finally:
            systemd.notify(READY=1)

    async def change_backend(self, action: str, wish: views.Json) -> views.Json:
        """See `AdminServer`."""
        return await self._keeper.change(action, wish)

    async def flush_flows(self, service: str, backend: str | None) -> views.Json:
        """See `AdminServer`."""
        members = self._keeper.roster.of(service)
        names = (
            list(members) if backend is None else [self._keeper.roster.member(service, backend).backend.name]
        )
        async with self._keeper.lock:
            slots = [self.design.slots.slot(service, name) for name in names]
            flushed = await asyncio.to_thread(self._flush, slots)
        log("flows flushed", service=service, backend=backend or "all", flows=flushed)
        return {"flushed": flushed}

    def _take_beginnings(self) -> dict[Key, tuple[int, int]]:
        """By backend how many flows began since the last call, and how many failed to."""
        assert self._crew is not None
        owner = self.design.slots.owner
        return {owner(slot): counts for slot, counts in self._crew.take_beginnings().items()}

    def _mark_of(self, key: Key) -> int:
        """What makes the rules send a packet to a backend as if it had come for its service's first VIP."""
        return forward_mark(self.design.slots.slot(*key))

    def _flush(self, slots: list[int]) -> int:
        assert self._crew is not None
        removed = sum(self._crew.remove_flows(slot) for slot in slots)
        if self.design.table.learns:
            nft.run_nft(render_forget_flows())
            if self._fast_path is not None:
                self._fast_path.forget()
        return removed

    def _load_again(self) -> L4Config:
        config = self._file.load()
        self._refuse_fixed(config)
        return config

    def carry_out(
        self, config: L4Config, ended: Iterable[tuple[Key, OnDown]], withdrawn: frozenset[Address]
    ) -> None:
        """Makes a configuration true; on any error the one before goes on. Called by one thread at a time."""
        assert self._journal is not None and self._designer is not None and self._crew is not None
        design = self._designer.design(
            config,
            self.design.slots.copy(),
            find_paths(addresses_to_reach(config)),
            flows_of=self._crew.flows_of,
            previous=self.design,
            ended=ended,
            withdrawn=withdrawn,
        )
        script = render_change(self.design.rules, design.rules)
        nft.run_nft(script, check=True)
        prepare_host(self._journal, self._needs(design))
        nft.run_nft(script)
        if self._fast_path is not None:
            self._fast_path.update(design)
        # From here on a failure may not leave the two apart: nothing below asks the kernel.
        self._crew.publish(design.table)
        before, self._design = self.design, design
        _log_withdrawals(before.withdrawn, design)

    def _refuse_fixed(self, config: L4Config) -> None:
        if fixed := fixed_differences(self.first_config, config):
            raise ConfigError(
                f"{self.config_path}: {', '.join(fixed)} cannot change while running; "
                "nothing was changed, restart the daemon"
            )

    def _by_signal(self, action: Callable[[], Awaitable[object]], what: str) -> None:
        async def run() -> None:
            try:
                await action()
            except L4lbError as error:
                log(f"{what} failed, what is running goes on", level=logging.ERROR, why=error)

        self._tasks.append(asyncio.get_running_loop().create_task(run()))

    # Replacing the program -------------------------------------------------------------------------

    async def replace(self) -> None:
        """Goes on as a newly started program with the same flows. L4lbError where the new one would not
        start."""
        async with self._keeper.lock:
            if self.datapath is Datapath.REFERENCE:
                raise L4lbError("the datapath reference cannot hand its queues over; restart the daemon")
            self._refuse_fixed(self._file.load())
            await asyncio.to_thread(try_program, "check", "--config", str(self.config_path))
            await self._admin.stop()
            await self._metrics.stop()
            await self._watch.close()
            try:
                self._hand_over()
            finally:
                await self._admin.start()
                self._watch.begin()
                await self._metrics.move(self._keeper.roster.config.metrics)

    def _hand_over(self) -> None:
        assert self._crew is not None and self._designer is not None and self._slow_path is not None
        began = time.monotonic()
        self._slow_path.stop()
        self._crew.pause()
        try:
            queues, files, counters = self._crew.pack()
            state = {
                **dump_state(self.design, self._designer),
                "counters": counters,
                "backends": self._keeper.roster.dump(),
                "checks": self._watch.dump(),
                "started": self.started,
                "began": began,
            }
            replace_program(Luggage(state, {**queues, **self._lock.descriptors()}, files))
        except OSError as error:
            self._crew.resume()
            self._start_slow_path()
            raise L4lbError(f"{sys.executable}: cannot be run: {error.strerror}") from error

    def _take_over(self, luggage: Luggage) -> None:
        """In place of the rest of `start`: goes on where the program before stopped."""
        self._lock.adopt(luggage.descriptors)
        legacy = load_state(luggage.state)
        self._designer = legacy.designer
        self.datapath = legacy.designer.datapath
        self.started = luggage.state["started"]
        self._journal = Journal(journal_path(self.socket_path))
        self._keeper.roster.restore(luggage.state["backends"])
        self._keeper.roster.settle(time.monotonic())
        self._watch.restore(luggage.state["checks"])
        config, plan = self._keeper.roster.effective_config(), legacy.designer.plan
        self._design = legacy.designer.design(
            config,
            legacy.slots,
            find_paths(addresses_to_reach(config)),
            # Nothing is known yet of the flows: no slot is given to another backend.
            flows_of=lambda slot: 1,
            ended=self._keeper.roster.ended(),
            withdrawn=self._keeper.roster.withdrawn(),
            indices=legacy.indices,
        )
        prepare_host(self._journal, self._needs(self._design))
        nft.run_nft(render_change(legacy.rules, self._design.rules))
        self._installed = True
        self._crew = Crew(
            plan_crew(config, self.datapath, plan.workers),
            legacy.designer.key,
            views.now_ms,
            self._worker_failed,
        )
        self._crew.unpack(self._design.table, luggage.descriptors, luggage.files, luggage.state["counters"])
        self._start_slow_path()
        self._start_fast_path(keep=True)
        paused = time.monotonic() - luggage.state["began"]
        log(
            "replaced",
            version=__version__,
            flows=self._flow_counts()["flows"],
            paused_ms=round(paused * 1000),
        )

    # Answers ---------------------------------------------------------------------------------------

    def status(self) -> views.Json:
        """See `AdminServer`."""
        assert self._designer is not None and self._crew is not None and self._slow_path is not None
        return {
            "ready": not self._stopping.is_set(),
            "version": __version__,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self.started, 1),
            "config": str(self.config_path),
            "datapath": str(self.datapath),
            "queueing": "nft" if self._designer.plan.native_queue else "xtables",
            "workers": len(self.workers),
            "services": len(self.config.services),
            "backends": sum(not member.backend.sorry for member in self._keeper.roster.members()),
            "trouble": self._keeper.trouble,
            **self._flow_counts(),
            **views.kernel_counters(),
            "scheduler_failures": self._schedulers.failures(),
            "untracked_sources": self._crew.untracked_sources,
            "crowded_out_affinities": self._crew.crowded_out_affinities,
            "service_states": views.service_states(self._keeper.roster),
            "reassembly": read_reassembly(),
            "icmp": self._slow_path.counts(),
            "reasons": views.reason_totals(self.workers),
            "queues": views.queue_rows(self._crew.everyone),
        }

    def services(self) -> Iterator[views.Json]:
        """See `AdminServer`."""
        return views.service_rows(self._scene())

    def backends(self) -> Iterator[views.Json]:
        """See `AdminServer`."""
        return views.backend_rows(self._scene())

    async def flows(self, query: dict[str, str]) -> FlowPage:
        """See `AdminServer`. The table is walked in a thread of its own, without the GIL."""
        return await asyncio.to_thread(flow_page, self._scene(counted=False), query)

    def metrics(self) -> str:
        """See `AdminServer`."""
        services = views.standing_rows(self._keeper.roster)
        return render_metrics(self.status(), services, self.backends(), read_process())

    def decisions(self, packets: list[bytes]) -> list[views.Json]:
        """See `AdminServer`."""
        return decide_packets(self._scene(counted=False), packets, views.now_ms())

    async def flow_count(self, filters: dict[str, str]) -> views.Json:
        """See `AdminServer`."""
        counts = self._flow_counts()
        if filters:
            counts["flows"] = await asyncio.to_thread(count_flows, self._scene(counted=False), filters)
        return counts

    def _flow_counts(self) -> views.Json:
        return {
            "flows": sum(worker.balancer.flow_count() for worker in self.workers),
            "flow_capacity": sum(worker.balancer.capacity for worker in self.workers),
        }

    def explain(self, client: str, service: str) -> views.Json:
        """See `AdminServer`."""
        return views.explain(self._scene(), client, service)

    def _scene(self, *, counted: bool = True) -> views.Scene:
        """What the answers are made of; `counted` also asks the kernel for what it alone has counted."""
        assert self._designer is not None
        design, marks = self.design, self._designer.plan.marks
        kernel = read_kernel_counts(design.table) if counted and marks else {}
        return views.Scene(
            design.config,
            design.slots,
            design.table,
            self.workers,
            kernel,
            learned_slots(design.table),
            self._keeper.roster,
        )


def _log_withdrawals(before: frozenset[Address], design: Design) -> None:
    """Says which VIPs the host has no more, or again."""
    for vip in sorted(design.withdrawn - before, key=str):
        log("vip withdrawn", vip=vip, interface=design.config.vip_interface, level=logging.WARNING)
    for vip in sorted((before - design.withdrawn) & design.vips, key=str):
        log("vip is back", vip=vip, interface=design.config.vip_interface)
