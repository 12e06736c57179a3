"""The configuration file as a daemon reads it, again and again."""

from __future__ import annotations

from pathlib import Path

from l4lb.control.config import parse_placed
from l4lb.model import L4Config
from l4lb.net.files import read_config
from l4lb.net.userscheduler import Schedulers


class ConfigFile:
    """What users have written to schedule by is loaded into `schedulers`, where these are given."""

    def __init__(self, path: Path, schedulers: Schedulers | None = None) -> None:
        self.path = path
        self._schedulers = schedulers
        self._text: str | None = None
        self._config: L4Config | None = None

    def load(self) -> L4Config:
        """The configuration in the file; ConfigError says what is wrong and where. A text that has not
        changed is not parsed again."""
        text = read_config(self.path)
        if self._config is None or text != self._text:
            placed = parse_placed(text, str(self.path))
            if self._schedulers is not None:
                self._schedulers.load(placed)
            self._text, self._config = text, placed.value
        return self._config
