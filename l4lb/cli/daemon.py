"""The daemon: puts configuration, rules, workers and the admin socket together, and takes them apart.

Start: queues are bound and workers serve before any rule sends them a packet. Stop: rules first stop
sending, the queues run empty, then everything is put back. A reload changes the kernel's elements before the
workers' table, so that no packet carries a mark that the kernel does not know.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from l4lb import __version__
from l4lb.cli import views
from l4lb.control.config import parse_config
from l4lb.control.expand import LookupCache, expand
from l4lb.control.rules import RulePlan, describe_rules, queue_chain
from l4lb.control.ruleset import TABLE, Ruleset, render_change, render_drain, render_install
from l4lb.control.slots import SlotRegistry
from l4lb.dataplane.balancer import Balancer, SharedCounters
from l4lb.dataplane.nativetable import NativeTable
from l4lb.dataplane.table import Table
from l4lb.errors import ConfigError, L4lbError
from l4lb.model import Address, Datapath, L4Config
from l4lb.net import nft
from l4lb.net.admin import AdminServer
from l4lb.net.files import read_config
from l4lb.net.host import prepare_host, restore_host
from l4lb.net.journal import Journal
from l4lb.net.lock import RunLock
from l4lb.net.logs import log
from l4lb.net.privilege import demand_net_admin
from l4lb.net.probe import Host, choose_datapath, probe_host
from l4lb.net.queue import read_kernel_queues
from l4lb.net.worker import NativeWorker, Worker

_DRAIN_TIMEOUT_S = 2.0
_EXPIRE_EVERY_S = 0.25
_EXPIRE_TURNS = 20
"""The whole flow table is looked through for expired flows in this many turns: every 5 s."""
_EXPIRE_GROUPS = 256
_MACHINE_ID = Path("/etc/machine-id")


class Daemon:
    """One running balancer. `start`, `serve` until a signal, `stop`."""

    def __init__(self, config_path: Path, socket_path: Path) -> None:
        self.config_path = config_path
        self.socket_path = socket_path
        self.config = load(config_path)
        self.slots = SlotRegistry()
        self.shared = SharedCounters()
        self.workers: list[Worker] = []
        self.started = time.monotonic()
        self.failures: list[str] = []
        self._lock = RunLock(lock_path(socket_path))
        self._journal: Journal | None = None
        self._lookups = LookupCache()
        self._key = b""
        self._admin = AdminServer(self, socket_path)
        self._stopping = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._host: Host | None = None
        self.datapath = self.config.datapath
        self._table: Table | None = None
        self._compiled: NativeTable | None = None
        self._plan: RulePlan | None = None
        self._rules: Ruleset | None = None

    # Life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Brings everything up, in an order in which no packet is lost to a half-made state.

        Whatever fails, what was done before is undone and the error is raised.
        """
        demand_net_admin()
        self._lock.acquire()
        try:
            self._key = self.config.hash_key or machine_key()
            self._host = probe_host()
            self.datapath = choose_datapath(self._host, self.config.datapath)
            self._journal = Journal(journal_path(self.socket_path))
            self._plan_rules()
            # A killed run's rules still queue. A worker that served them would see its packets go through
            # both sets of rules; so then the rules come first, and the kernel drops until it is there.
            takeover = nft.table_exists(TABLE)
            if not takeover:
                self._start_workers()
            prepare_host(self._journal, _vips(self.config), self.config.vip_interface)
            assert self._table is not None and self._plan is not None
            # From here on the table is ours to delete: before, it may be one that a killed run left.
            self._rules = describe_rules(self._table, self._plan)
            nft.run_nft(render_install(self._rules))
            if not self._plan.native_queue:
                first = self._plan.first_queue
                numbers = {queue_chain(n): first + n for n in range(self._plan.workers)}
                nft.add_queue_rules(TABLE, numbers)
            if takeover:
                self._start_workers()
        except BaseException:
            self.stop()
            raise
        log(
            "balancing",
            datapath=self.datapath,
            workers=len(self.workers),
            services=len(self.config.services),
            start_ms=round((time.monotonic() - self.started) * 1000),
        )

    async def serve(self) -> None:
        """Answers the admin socket and signals until SIGTERM or SIGINT, or until a worker fails."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_by_signal)
        await self._admin.start()
        self._tasks.append(loop.create_task(self._expire()))
        log("ready", socket=self.socket_path)
        try:
            await self._stopping.wait()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._admin.stop()
        if self.failures:
            raise L4lbError("; ".join(self.failures))

    def stop(self) -> None:
        """Puts the host back as it was. Safe at any point of `start`, and more than once."""
        if self._journal is not None:
            installed = self._rules is not None and nft.table_exists(TABLE)
            if self._rules is not None and installed:
                nft.run_nft(render_drain(self._rules))
                self._wait_for_empty_queues()
            for line in restore_host(self._journal):
                log(line)
            if installed:
                nft.delete_table(TABLE)
            self._journal = None
        for worker in self.workers:
            worker.stop()
        self.workers.clear()
        self._lock.release()

    def _plan_rules(self) -> None:
        assert self._host is not None
        native = self.datapath is not Datapath.REFERENCE
        count = self.config.workers or len(os.sched_getaffinity(0))
        if not native or not self._host.has("nft-hash"):
            count = 1
        self._plan = RulePlan(
            marks=self.datapath is Datapath.MARK,
            workers=count,
            first_queue=self.config.queue.first,
            seed=int.from_bytes(self._key[:4], "big") or 1,
            native_queue=self._host.has("nft-queue"),
        )
        self._table = self._expand(self.config, self.slots)

    def _start_workers(self) -> None:
        assert self._plan is not None and self._table is not None
        for number in range(self._plan.first_queue, self._plan.first_queue + self._plan.workers):
            self.workers.append(self._make_worker(number, self._plan.workers))
        self._publish(self._table)
        for worker in self.workers:
            worker.start()

    def _make_worker(self, number: int, count: int) -> Worker:
        capacity = -(-self.config.flows.capacity // count)
        length = self.config.queue.length
        if self.datapath is not Datapath.REFERENCE:
            balancer = Balancer(capacity=capacity, key=self._key, shared=self.shared)
            rewrite = self.datapath is Datapath.REWRITE
            return NativeWorker(
                number, balancer, rewrite=rewrite, length=length, on_failure=self._worker_failed
            )
        from l4lb.net.reference_worker import ReferenceWorker

        return ReferenceWorker(
            number,
            capacity=capacity,
            key=self._key,
            length=length,
            now_ms=views.now_ms,
            on_failure=self._worker_failed,
        )

    def _worker_failed(self, why: str) -> None:
        """Called in the worker's thread: without its worker a queue eats packets, so the daemon ends."""
        self.failures.append(why)
        log("worker failed", level=logging.ERROR, why=why)
        os.kill(os.getpid(), signal.SIGTERM)

    def _wait_for_empty_queues(self) -> None:
        """Lets the workers answer what was queued before the rules stopped; bounded."""
        own = {worker.number for worker in self.workers}
        deadline = time.monotonic() + _DRAIN_TIMEOUT_S
        while any(q.waiting for q in read_kernel_queues() if q.number in own):
            if time.monotonic() > deadline:
                log("queues did not run empty", level=logging.WARNING)
                return
            time.sleep(0.005)

    async def _expire(self) -> None:
        """Removes expired flows, a slice of every table at a time."""
        at = 0
        while True:
            await asyncio.sleep(_EXPIRE_EVERY_S)
            at = (at + 1) % _EXPIRE_TURNS
            now = views.now_ms()
            for worker in self.workers:
                if isinstance(worker, NativeWorker):
                    groups = worker.balancer.groups
                    first, end = groups * at // _EXPIRE_TURNS, groups * (at + 1) // _EXPIRE_TURNS
                    for group in range(first, end, _EXPIRE_GROUPS):
                        worker.balancer.expire_groups(group, min(_EXPIRE_GROUPS, end - group), now)
                elif at == 0:
                    worker.balancer.expire(now)

    # Changing --------------------------------------------------------------------------------------

    def _expand(self, config: L4Config, slots: SlotRegistry) -> Table:
        slots.assign(config, self._flows_of)
        replies_seen = self.datapath is not Datapath.MARK
        return expand(
            config,
            slots,
            replies_seen=replies_seen,
            key=self._key,
            lookups=self._lookups,
            previous=self._table,
        )

    def _flows_of(self, slot: int) -> int:
        return self.workers[0].balancer.slot_counters(slot).flows if self.workers else 0

    def _publish(self, table: Table) -> None:
        self._compiled = NativeTable(table, self._compiled)
        for worker in self.workers:
            worker.balancer.publish(self._compiled if isinstance(worker, NativeWorker) else table)

    async def reload(self) -> views.Json:
        """Reads the configuration again and changes what differs; on any error the old one goes on.

        The work is done beside the event loop, one reload after another.
        """
        async with self._reloading:
            return await asyncio.to_thread(self._reload)

    def _reload(self) -> views.Json:
        began = time.monotonic()
        config = load(self.config_path)
        fixed = [
            key
            for key, old, new in (
                ("l4.datapath", self.config.datapath, config.datapath),
                ("l4.workers", self.config.workers, config.workers),
                ("l4.queue", self.config.queue, config.queue),
                ("l4.flow_table", self.config.flows, config.flows),
                ("l4.hash_key", self.config.hash_key, config.hash_key),
            )
            if old != new
        ]
        if fixed:
            raise ConfigError(
                f"{self.config_path}: {', '.join(fixed)} cannot change while running; "
                "nothing was changed, restart the daemon"
            )
        assert self._journal is not None and self._plan is not None and self._rules is not None
        slots = self.slots.copy()
        table = self._expand(config, slots)
        rules = describe_rules(table, self._plan, self._table)
        script = render_change(self._rules, rules)
        nft.run_nft(script, check=True)
        prepare_host(self._journal, _vips(config), config.vip_interface)
        nft.run_nft(script)
        self._rules = rules
        self._publish(table)
        self._table, self.config, self.slots = table, config, slots
        took = round(time.monotonic() - began, 3)
        log("reloaded", services=len(config.services), seconds=took)
        return {"reloaded": True, "services": len(config.services), "seconds": took}

    def _reload_by_signal(self) -> None:
        async def run() -> None:
            try:
                await self.reload()
            except L4lbError as error:
                log("reload failed, the running configuration goes on", level=logging.ERROR, why=error)

        self._tasks.append(asyncio.get_running_loop().create_task(run()))

    # Answers ---------------------------------------------------------------------------------------

    def status(self) -> views.Json:
        """See `AdminServer`."""
        assert self._plan is not None
        kernel = {q.number: q for q in read_kernel_queues()}
        counters = nft.read_counters(TABLE)
        queues = []
        for worker in self.workers:
            queue = kernel.get(worker.number)
            queues.append(
                {
                    "number": worker.number,
                    "waiting": queue.waiting if queue else 0,
                    "dropped_full": queue.dropped_full if queue else 0,
                    "dropped_socket": queue.dropped_socket if queue else 0,
                    **worker.loop_counts(),
                }
            )
        return {
            "ready": not self._stopping.is_set(),
            "version": __version__,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self.started, 1),
            "config": str(self.config_path),
            "datapath": str(self.datapath),
            "queueing": "nft" if self._plan.native_queue else "xtables",
            "workers": len(self.workers),
            "services": len(self.config.services),
            "backends": sum(len(service.backends) for service in self.config.services),
            **self.flow_count(),
            "undecided": counters.get("undecided", 0),
            "fragments": counters.get("fragments", 0),
            "reasons": views.reason_totals(self.workers),
            "queues": queues,
        }

    def services(self) -> Iterator[views.Json]:
        """See `AdminServer`."""
        return views.service_rows(self.config, self.slots, self.workers, self._answers_seen)

    def backends(self) -> Iterator[views.Json]:
        """See `AdminServer`."""
        return views.backend_rows(self.config, self.slots, self.workers, self._answers_seen)

    def flows(self, filters: dict[str, str]) -> Iterable[views.Json]:
        """See `AdminServer`."""
        return views.flow_rows(self.slots, self.workers, filters)

    def flow_count(self) -> views.Json:
        """See `AdminServer`."""
        return {
            "flows": sum(worker.balancer.flow_count() for worker in self.workers),
            "flow_capacity": sum(worker.balancer.capacity for worker in self.workers),
        }

    def explain(self, client: str, service: str) -> views.Json:
        """See `AdminServer`."""
        return views.explain(self.config, self.slots, self.workers, self._answers_seen, client, service)

    @property
    def _answers_seen(self) -> bool:
        """Whether the workers see what backends send, and so can count it."""
        return self.datapath is not Datapath.MARK


def _vips(config: L4Config) -> set[Address]:
    return {listen.address for service in config.services for listen in service.listens}


def load(path: Path) -> L4Config:
    """The configuration in a file; ConfigError says what is wrong and where."""
    return parse_config(read_config(path), str(path))


def lock_path(socket_path: Path) -> Path:
    """Where the daemon of this socket keeps its lock and its process id."""
    return socket_path.with_suffix(".lock")


def journal_path(socket_path: Path) -> Path:
    """Where the daemon of this socket writes down what it changes on the host."""
    return socket_path.with_suffix(".journal")


def machine_key() -> bytes:
    """A key of this machine's own: the same after a restart, and not to be guessed from outside."""
    try:
        identity = _MACHINE_ID.read_text().strip()
    except OSError:
        identity = ""
    if not identity:
        log(
            "no /etc/machine-id: hashing by a random key, so a restart reshuffles flows; set l4.hash_key",
            level=logging.WARNING,
        )
        return secrets.token_bytes(16)
    return hashlib.blake2s(identity.encode(), digest_size=16, person=b"l4lb key").digest()
