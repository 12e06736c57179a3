"""What the tests on real namespaces share; without root or namespaces they are skipped, with the reason."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest

from tests.support.lab import Lab, Process, unavailable, unique_prefix


@pytest.fixture(scope="session")
def no_lab_because() -> str | None:
    return unavailable()


@pytest.fixture(autouse=True)
def _needs_root(request: pytest.FixtureRequest, no_lab_because: str | None) -> None:
    if request.node.get_closest_marker("root") and no_lab_because is not None:
        pytest.skip(no_lab_because)


@pytest.fixture(scope="module")
def lab(no_lab_because: str | None) -> Iterator[Lab]:
    """A lab with three backends for all tests of a module."""
    if no_lab_because is not None:
        pytest.skip(no_lab_because)
    with Lab(unique_prefix("test")) as made:
        yield made


@pytest.fixture
def web(lab: Lab) -> Iterator[dict[str, Process]]:
    """An HTTP server on each backend, to be stopped at will."""
    started = {}
    for host in lab.backends:
        words = ["-m", "tests.support.http_server", "--name", host.name, "--port", "8080"]
        started[host.name] = host.popen([sys.executable, *words])
    for host in lab.backends:
        host.wait_listening(8080)
    yield started
    for process in started.values():
        process.stop(signal.SIGKILL)
