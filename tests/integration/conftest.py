"""What the tests on real namespaces share; without root or namespaces they are skipped, with the reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.lab import Lab, unavailable, unique_prefix


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
