"""Commands whose modules are loaded when they are asked for: what a start does not need costs it nothing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """Besides what is added to it, has the commands `modules`: their names with those of modules.

    In such a module the command is called `command`.
    """

    def __init__(self, *args: Any, modules: Mapping[str, str], **more: Any) -> None:
        super().__init__(*args, **more)
        self.modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted({*super().list_commands(ctx), *self.modules})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, loaded now; None where there is none."""
        if cmd_name in self.modules and cmd_name not in self.commands:
            self.add_command(import_module(self.modules[cmd_name]).command)
        return super().get_command(ctx, cmd_name)
