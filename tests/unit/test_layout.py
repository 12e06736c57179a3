"""How tables look: columns, what is cut, and what text from elsewhere may do to a terminal."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest

from l4lb.console.layout import Screen, lay_out_fields, lay_out_rows, screen_of

HEADINGS, NUMERIC = ("NAME", "FLOWS", "STATE"), (False, True, False)
ROWS = (("web", "12", "up"), ("a-longer-name", "1 234", "down"))


def test_columns_are_as_wide_as_their_longest_and_numbers_stand_to_the_right() -> None:
    assert lay_out_rows(HEADINGS, ROWS, NUMERIC, Screen()) == [
        "NAME           FLOWS  STATE",
        "web               12  up",
        "a-longer-name  1 234  down",
    ]


def test_what_a_terminal_has_no_room_for_is_cut_and_the_heading_is_bold() -> None:
    heading, web, longer = lay_out_rows(HEADINGS, ROWS, NUMERIC, Screen(width=20, styled=True))
    assert heading == "\x1b[1mNAME           FLOW…\x1b[0m"
    assert (web, longer) == ("web               1…", "a-longer-name  1 23…")


def test_of_a_field_nothing_is_cut() -> None:
    long = "x" * 100
    assert lay_out_fields([("why", long), ("state", "up")], Screen(width=20)) == [
        f"why    {long}",
        "state  up",
    ]


def test_text_from_elsewhere_does_not_steer_the_terminal() -> None:
    assert lay_out_fields([("why", "got \x1b[2J\r\nOK é")], Screen()) == ["why  got ?[2J??OK é"]


def test_no_terminal_is_as_wide_as_it_has_to_be() -> None:
    assert screen_of(io.StringIO()) == Screen(width=None, styled=False)


def test_a_terminal_says_how_wide_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    try:
        subprocess.run(["stty", "cols", "77", "rows", "20"], stdin=slave, check=True)
        with os.fdopen(slave, "w") as stream:
            assert screen_of(stream) == Screen(width=77, styled=True)
            monkeypatch.setenv("TERM", "dumb")
            assert screen_of(stream) == Screen(width=77, styled=False)
    finally:
        os.close(master)


def test_a_command_that_prints_a_table_loads_neither_rich_nor_the_daemon() -> None:
    script = (
        "import sys; from l4lb.cli.main import cli\n"
        "cli.main(['flows', 'ls', '--help'], standalone_mode=False)\n"
        "print(*sorted({'rich', 'yaml', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""
