"""train.py is read once, as one regular file, or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
import time
import tokenize
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.airlock import snapshot
from runner.core.base.errors import SnapshotError

CAP = 4096


@pytest.fixture
def train_py(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text("print('ü')\n\tx = 1\r\n", encoding="utf-8", newline="")
    return path


def reason(path: Path, cap: int = CAP) -> str:
    with pytest.raises(SnapshotError) as caught:
        snapshot.take(path, path.parent / "store", cap)
    assert caught.value.fix
    assert caught.value.exit_code == 7
    return caught.value.reason


def test_a_plain_file_is_kept_under_its_hash_and_read_only(train_py: Path, tmp_path: Path) -> None:
    taken = snapshot.take(train_py, tmp_path / "store", CAP)
    assert taken.sha256 == hashlib.sha256(train_py.read_bytes()).hexdigest()
    assert taken.path.read_bytes() == train_py.read_bytes()
    assert stat.S_IMODE(taken.path.stat().st_mode) == 0o444
    assert snapshot.take(train_py, tmp_path / "store", CAP) == taken


def test_a_symlink_is_refused(train_py: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.py"
    link.symlink_to(train_py)
    assert reason(link) == "not_regular"


def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    begin = time.monotonic()
    assert reason(path) == "not_regular"
    assert time.monotonic() - begin < 5


def test_a_directory_and_a_device_are_refused(tmp_path: Path) -> None:
    assert reason(tmp_path) == "not_regular"
    with pytest.raises(SnapshotError):
        snapshot.read(Path("/dev/zero"), CAP)


def test_a_hard_link_is_refused(train_py: Path, tmp_path: Path) -> None:
    os.link(train_py, tmp_path / "other")
    assert reason(train_py) == "hard_link"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert reason(tmp_path / "none.py") == "missing"


def test_one_byte_over_the_cap_is_refused_and_the_cap_itself_is_not(tmp_path: Path) -> None:
    path = tmp_path / "big.py"
    path.write_bytes(b"#" * (CAP + 1))
    assert reason(path) == "too_large"
    path.write_bytes(b"#" * CAP)
    assert snapshot.take(path, tmp_path / "store", CAP).size == CAP


def test_ten_megabytes_and_sparse_terabytes_are_refused_quickly(tmp_path: Path) -> None:
    path = tmp_path / "big.py"
    path.write_bytes(b"#" * (10 << 20))
    assert reason(path) == "too_large"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert reason(path) == "too_large"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x7fELF\x02\x01\xff\xfe", "not_utf8"),
        (b"x = 1\x00", "control_character"),
        (b"x = '\x1b[2J'", "control_character"),
        ("x = 1 # \u202e evil".encode(), "control_character"),
        ("x\u2066 = 1".encode(), "control_character"),
    ],
)
def test_binary_control_and_bidirectional_text_is_refused(tmp_path: Path, data: bytes, code: str) -> None:
    path = tmp_path / "train.py"
    path.write_bytes(data)
    assert reason(path) == code


def test_a_file_that_never_stops_changing_is_refused(train_py: Path) -> None:
    stop = threading.Event()

    def scribble() -> None:
        while not stop.is_set():
            train_py.write_bytes(b"#" * 1000)
            os.utime(train_py, ns=(time.time_ns(), time.time_ns()))

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        for _ in range(200):
            try:
                data = snapshot.read(train_py, CAP)
            except SnapshotError as error:
                assert error.reason == "changing"
            else:
                assert data in (b"", b"#" * 1000, "print('ü')\n\tx = 1\r\n".encode())
    finally:
        stop.set()
        thread.join()


def test_restore_keeps_the_inode_and_cuts_longer_content(train_py: Path) -> None:
    inode = train_py.stat().st_ino
    train_py.write_text("x" * 2000)
    snapshot.restore(train_py, b"short\n")
    assert train_py.read_bytes() == b"short\n"
    assert train_py.stat().st_ino == inode


def test_restore_refuses_a_hard_link_and_leaves_the_other_name_alone(train_py: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"somebody's")
    train_py.unlink()
    os.link(other, train_py)
    with pytest.raises(SnapshotError, match="more than one link"):
        snapshot.restore(train_py, b"overwritten")
    assert other.read_bytes() == b"somebody's"
    other.unlink()
    snapshot.restore(train_py, b"alone")
    assert train_py.read_bytes() == b"alone"


def test_restore_refuses_a_symlink_and_leaves_its_target_alone(train_py: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.py"
    link.symlink_to(train_py)
    before = train_py.read_bytes()
    with pytest.raises(SnapshotError):
        snapshot.restore(link, b"overwritten")
    assert train_py.read_bytes() == before


def test_the_provisioned_file_is_ours_and_only_group_writable(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    snapshot.provision(path, b"x = 1\n", os.getegid())
    found = path.stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (os.geteuid(), 0o660)


@given(st.binary(max_size=300))
def test_any_bytes_are_either_kept_exactly_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "train.py"
    path.write_bytes(data)
    try:
        assert snapshot.read(path, CAP) == data
    except SnapshotError as error:
        assert error.reason in ("not_utf8", "control_character")


CODED = [
    ("# coding: utf-7\n+AAo-x = 1\n", True),
    ("#!/usr/bin/env python\n# -*- coding: latin-1 -*-\n", True),
    ("\t# vim: set fileencoding=UTF-16 :\n", True),
    ("# coding: utf-8\n", False),
    ("#!/usr/bin/env python\n# -*- coding: UTF_8 -*-\n", False),
    ("# vim: set fileencoding=utf8 :\n", False),
    ("x = 'coding: utf-7'\n", False),
    ("x = 1\n\n# coding: utf-7\n", False),
]


@pytest.mark.parametrize(("text", "refused"), CODED)
def test_a_file_python_would_read_in_another_encoding_is_refused(tmp_path: Path, text: str, refused: bool) -> None:
    """A comment of UTF-7 may hold a new line, and code on it that no reader sees."""
    path = tmp_path / "train.py"
    path.write_text(text)
    if refused:
        assert reason(path) == "not_utf8"
    else:
        assert snapshot.take(path, tmp_path / "store", CAP)


PIECES = [
    "#",
    "coding",
    ":",
    "=",
    " ",
    "\t",
    "\f",
    "\n",
    "\r\n",
    "utf-8",
    "UTF_8",
    "utf-7",
    "latin-1",
    "-",
    "x",
    "é",
    "",
]


@given(st.lists(st.sampled_from(PIECES), max_size=14))
def test_whatever_passes_python_reads_as_utf8(tmp_path_factory: pytest.TempPathFactory, pieces: list[str]) -> None:
    path = tmp_path_factory.mktemp("coded") / "train.py"
    path.write_bytes("".join(pieces).encode())
    try:
        data = snapshot.read(path, CAP)
    except SnapshotError:
        return
    assert tokenize.detect_encoding(io.BytesIO(data).readline)[0] == "utf-8"
