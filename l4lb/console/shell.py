"""How a command begins and ends: the settings of every group, and errors as one line and an exit code."""

from __future__ import annotations

import sys
import traceback
from typing import Any, NoReturn

import click

from l4lb.console import output
from l4lb.errors import L4lbError

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, 2 command line or configuration wrong, "
    "3 privilege or kernel feature missing, 4 no daemon answers."
)


def run_command(group: click.Group, program: str) -> NoReturn:
    """Runs the command line of `program`; every error becomes one line and an exit code."""
    try:
        code = group.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else program
        message = f"{error.format_message().rstrip('.')}; `{command} --help` shows what it takes"
        output.complain(message, program)
        sys.exit(error.exit_code)
    except L4lbError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        output.complain(str(error), program)
        sys.exit(error.exit_code)
