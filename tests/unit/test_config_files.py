"""Reading the file itself, and what could be there in its place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from l4lb.net.files import MAX_CONFIG_BYTES, read_config
from tests.support.configs import error_of, web


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    path.write_bytes(web().encode())
    assert read_config(path) == web() == read_config(str(path))


def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    path.write_bytes(b"#" * MAX_CONFIG_BYTES)
    assert len(read_config(path)) == MAX_CONFIG_BYTES
    path.write_bytes(b"#" * (MAX_CONFIG_BYTES + 1))
    assert error_of(lambda: read_config(path)) == f"{path}: is larger than 4 MiB; is this the right file?"


def test_a_file_of_10_megabytes_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lb.yaml"
    path.touch()
    os.truncate(path, 10_000_000)
    sizes = []

    def read(descriptor: int, size: int, read: Callable[[int, int], bytes] = os.read) -> bytes:
        data = read(descriptor, size)
        sizes.append(len(data))
        return data

    monkeypatch.setattr("l4lb.net.files.os.read", read)
    assert error_of(lambda: read_config(path)) == f"{path}: is larger than 4 MiB; is this the right file?"
    assert sum(sizes) == MAX_CONFIG_BYTES + 1


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    assert error_of(lambda: read_config(path)) == (
        f"{path}: cannot be read: No such file or directory; check the path and its permissions"
    )


def test_a_file_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("l4lb.net.files.os.open", refuse)  # root may read everything
    assert error_of(lambda: read_config("/etc/l4lb.yaml")) == (
        "/etc/l4lb.yaml: cannot be read: Permission denied; check the path and its permissions"
    )


def test_a_link_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    path.symlink_to(path)
    assert "cannot be read: Too many levels of symbolic links;" in error_of(lambda: read_config(path))


def test_a_name_with_a_zero_byte() -> None:
    assert error_of(lambda: read_config("a\0b")) == (
        "a\\x00b: cannot be read: embedded null byte; check the path and its permissions"
    )


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    hint = "name the configuration file itself"
    assert error_of(lambda: read_config(tmp_path)) == f"{tmp_path}: is a directory; {hint}"
    assert error_of(lambda: read_config(pipe)) == f"{pipe}: is not a regular file; {hint}"
    assert error_of(lambda: read_config("/dev/zero")) == f"/dev/zero: is not a regular file; {hint}"


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    path.write_bytes("l4:\n  # für\n".encode("latin-1"))
    assert (
        error_of(lambda: read_config(path))
        == f"{path}:2:6: file: byte 0xFC is not UTF-8; save the file as UTF-8"
    )
