"""A Chromium without a window, driven over WebDriver (W3C): what a page's user and its scripts see."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.lab import wait_for
from tests.support.proxy import start_program

TIMEOUT_S = 30.0
# No sandbox, for root has none; nothing that asks the network for more than it is told to.
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run
--no-default-browser-check --disable-background-networking --disable-component-update --disable-sync
--disable-default-apps --disable-extensions --no-proxy-server"""


def unavailable() -> str | None:
    """Why there is no browser; None where there is one."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(missing)} missing: run `scripts/setup --outside`" if missing else None


@dataclass(frozen=True)
class Browser:
    """One that runs."""

    url: str

    def open(self, url: str) -> None:
        """Goes there as by the address bar, and waits for the page."""
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        """What the body of a function in the page returns; a promise is waited for."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": []})

    def cookies(self) -> list[dict[str, Any]]:
        """The page's cookies with all that the browser knows of them, `httpOnly` ones too."""
        cookies: list[dict[str, Any]] = self._ask("GET", "/cookie")
        return cookies

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return _ask(method, self.url + path, body)


@contextmanager
def browser(directory: Path, *flags: str) -> Iterator[Browser]:
    """A browser with an empty profile until the block ends; `flags` are Chromium's."""
    log = directory / "chromedriver.log"
    driver = start_program(["chromedriver", "--port=0"], log, env={**os.environ, "HOME": str(directory)})

    def port() -> str | None:
        driver.check_running()
        return _port(log)

    try:
        wait_for(port, TIMEOUT_S, "chromedriver to say its port")
        url = f"http://127.0.0.1:{_port(log)}/session"
        args = [*FLAGS.split(), f"--user-data-dir={directory / 'profile'}", *flags]
        options = {"binary": shutil.which("chromium"), "args": args}
        always = {"browserName": "chrome", "goog:chromeOptions": options}
        made = _ask("POST", url, {"capabilities": {"alwaysMatch": always}})
        url += "/" + made["sessionId"]
        try:
            yield Browser(url)
        finally:
            _ask("DELETE", url)
    finally:
        driver.stop()
        # What a browser that hangs leaves behind is of the driver's group.
        with suppress(ProcessLookupError):
            os.killpg(driver.process.pid, signal.SIGKILL)


def _port(log: Path) -> str | None:
    found = re.search(r"started successfully on port (\d+)", log.read_text())
    return found[1] if found else None


def _ask(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from None
