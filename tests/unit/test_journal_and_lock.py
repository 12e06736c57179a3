from __future__ import annotations

import os

import pytest

from l4lb.errors import L4lbError
from l4lb.net.journal import Journal
from l4lb.net.lock import RunLock


def test_changes_are_found_again(tmp_path):
    journal = Journal(tmp_path / "l4lb.journal")
    journal.changes.addresses.append(("lo", "203.0.113.10/32"))
    journal.changes.sysctls["net/ipv4/ip_forward"] = "0"
    journal.write()
    assert Journal(journal.path).changes == journal.changes


def test_no_changes_leave_no_file(tmp_path):
    journal = Journal(tmp_path / "l4lb.journal")
    journal.changes.sysctls["net/ipv4/ip_forward"] = "0"
    journal.write()
    journal.changes.sysctls.clear()
    journal.write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"addresses": 1, "sysctls": {}}', "\0"])
def test_a_spoilt_journal_is_an_error_that_names_it(tmp_path, text):
    path = tmp_path / "l4lb.journal"
    path.write_text(text)
    with pytest.raises(L4lbError, match=str(path)):
        Journal(path)


def test_a_second_daemon_is_refused_and_told_of_the_first(tmp_path):
    first, second = RunLock(tmp_path / "lock"), RunLock(tmp_path / "lock")
    first.acquire()
    assert second.owner() == os.getpid()
    with pytest.raises(L4lbError, match=str(os.getpid())):
        second.acquire()
    first.release()
    assert second.owner() is None
    second.acquire()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_without_a_holder_is_taken_over(tmp_path):
    path = tmp_path / "lock"
    path.write_text("99999\n")
    lock = RunLock(path)
    assert lock.owner() is None
    lock.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()
