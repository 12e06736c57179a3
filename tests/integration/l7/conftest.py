"""What the tests of whole proxies share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.proxy import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Servers and proxies of one test, which end with it."""
    made = Site(tmp_path)
    try:
        yield made
    finally:
        made.close()
