"""How tables look where there is no terminal, and what they cost those who do not want one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from l4lb.console.output import print_fields, print_rows


def test_rows_stand_in_columns_and_are_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "web", "flows": 12}, {"name": "x" * 300, "flows": 1234}]
    print_rows(rows, [("NAME", "name"), ("FLOWS", "flows")], as_json=False, title="services", empty="none")
    title, heading, *lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert (title, heading) == ("services", f"NAME{' ' * 296}  FLOWS")
    assert lines == [f"web{' ' * 297}     12", f"{'x' * 300}  1 234"]


def test_text_from_elsewhere_neither_steers_the_terminal_nor_is_markup(capsys) -> None:
    print_fields("checks", [("why", "got [bold]\x1b[2J\r\nOK é")])
    assert capsys.readouterr().out.splitlines()[1].rstrip() == "why  got [bold]?[2J??OK é"


def test_a_process_id_is_written_as_kill_takes_it(capsys) -> None:
    print_fields("daemon", [("pid", 31234), ("flows", 31234)])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "daemon",
        "pid    31234",
        "flows  31 234",
    ]
    print_rows([{"pid": 31234}], [("PID", "pid")], as_json=False, title="l7", empty="none")
    assert capsys.readouterr().out.split() == ["l7", "PID", "31234"]


def test_who_prints_no_table_loads_neither_rich_nor_the_daemon() -> None:
    script = (
        "import sys; from l4lb.cli.main import cli\n"
        "cli.main(['flows', 'ls', '--help'], standalone_mode=False)\n"
        "print(*sorted({'rich', 'yaml', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""
