"""Loads the schedulers that a configuration names, and keeps one object for each service.

Importing runs their code with the rights of who imports it, so `l4lb run` and `l4lb check` alone do it.
Modules are looked for where Python looks (PYTHONPATH, what is installed beside l4lb), and imported once in
the life of a process: changed code is in force after SIGUSR2 or a restart.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module

from l4lb.control.placed import PlacedConfig
from l4lb.dataplane.custom import Guard, Scheduler
from l4lb.model import Service

REPORT_EVERY_S = 10.0
"""So often a scheduler that fails is complained about, however often it does."""


@dataclass(slots=True)
class _Kept:
    guard: Guard
    reported: int = 0
    reported_s: float = float("-inf")


@dataclass(slots=True)
class Schedulers:
    """Those of one process. `load` before `of` is asked."""

    _kept: dict[tuple[str, str], _Kept] = field(default_factory=dict)

    def load(self, config: PlacedConfig) -> None:
        """Makes what the configuration names and is not there yet. ConfigError, with the place, where that
        cannot be done."""
        for number, service in enumerate(config.value.services):
            if service.python is None or (service.name, service.python) in self._kept:
                continue
            try:
                self._kept[service.name, service.python] = _Kept(Guard(_make(service.python, service.name)))
            except ValueError as error:
                raise config.field.at(("services", number, "scheduler", "python")).error(str(error)) from None

    def of(self, service: Service) -> Guard | None:
        """The scheduler of a service, None where it names none or none was loaded."""
        kept = self._kept.get((service.name, service.python)) if service.python else None
        return kept.guard if kept else None

    def failures(self) -> int:
        """Flows that schedulers had no answer for."""
        return sum(kept.guard.failures for kept in self._kept.values())

    def complaints(self, now_s: float) -> Iterator[tuple[str, int, str]]:
        """Service, number of failures since the last complaint, and what the last one was."""
        for (service, _), kept in self._kept.items():
            failures = kept.guard.failures
            if failures > kept.reported and now_s - kept.reported_s >= REPORT_EVERY_S:
                yield service, failures - kept.reported, kept.guard.trouble
                kept.reported, kept.reported_s = failures, now_s


def _make(path: str, service: str) -> Scheduler:
    """ValueError where it cannot be done. What foreign code raises can be anything."""
    module_name, _, class_name = path.partition(":")
    try:
        module = import_module(module_name)
    except Exception as error:
        raise ValueError(
            f"{module_name} cannot be imported ({type(error).__name__}: {error}); "
            "install it beside l4lb, or set PYTHONPATH"
        ) from error
    kind = getattr(module, class_name, None)
    if kind is None:
        raise ValueError(f"module {module_name} has no {class_name}; name a class of it")
    base = f"{Scheduler.__module__}.{Scheduler.__name__}"
    if not isinstance(kind, type) or not issubclass(kind, Scheduler):
        raise ValueError(f"{class_name} of {module_name} is no scheduler; derive it from {base}")
    if inspect.isabstract(kind):
        raise ValueError(
            f"{class_name} of {module_name} has no method choose; define choose(self, flow, backends)"
        )
    try:
        inspect.signature(kind.choose).bind(None, None, None)
    except TypeError as error:
        raise ValueError(
            f"{class_name}.choose of {module_name}: {error}; define it as choose(self, flow, backends)"
        ) from error
    try:
        return kind(service)
    except Exception as error:
        raise ValueError(
            f"{class_name}({service!r}) of {module_name} failed ({type(error).__name__}: {error}); "
            "it is made with the name of the service"
        ) from error
