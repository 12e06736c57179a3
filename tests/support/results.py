"""One line about a test run, from pytest's JUnit file: `python -m tests.support.results FILE`."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree


def summarize(junit: str) -> str:
    """How many passed, failed and were skipped."""
    total = failed = skipped = 0
    for suite in ElementTree.fromstring(junit).iter("testsuite"):
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    reasons = " (the reasons are above)" if skipped else ""
    return f"{total - failed - skipped} tests passed, {failed} failed, {skipped} skipped{reasons}"


if __name__ == "__main__":
    print(summarize(Path(sys.argv[1]).read_text()))
