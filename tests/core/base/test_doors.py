"""Doors: capped lines, checked peers, no answer to strangers."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.core.base import dialing, doors
from runner.core.base.errors import DoorError


def echo(line: doors.Line) -> None:
    while (message := line.receive(1000)) is not None:
        line.send({"got": message})


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "door" / "x.sock"
    with doors.listening(path, gid=os.getegid(), mode=0o660) as sock:
        uids = frozenset({os.geteuid()})
        threading.Thread(target=doors.serve, args=(sock, uids, echo), daemon=True).start()
        yield path


def test_a_message_comes_back(door: Path) -> None:
    line = dialing.connect(door, 5)
    line.send({"a": [1, 2]})
    assert line.receive() == {"got": {"a": [1, 2]}}
    line.close()


def test_the_socket_is_for_its_group_only_and_goes_with_the_context(tmp_path: Path) -> None:
    path = tmp_path / "door" / "x.sock"
    with doors.listening(path, gid=os.getegid(), mode=0o660):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    assert not path.exists()


@pytest.mark.parametrize(
    "data",
    [b"x" * 5000 + b"\n", b"x" * 200_000, b'{"a":1,"a":2}\n', b"[1]\n", b"\xff\n", b'{"a":NaN}\n', b"{" * 900 + b"\n"],
)
def test_bad_lines_are_hung_up_on_without_an_answer(door: Path, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(door))
        try:
            sock.sendall(data)
            assert sock.recv(100) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass
    test_a_message_comes_back(door)  # the door still serves others


def test_a_stranger_is_hung_up_on_and_the_owner_is_not(tmp_path: Path) -> None:
    path = tmp_path / "door" / "x.sock"
    with doors.listening(path, gid=os.getegid(), mode=0o660) as sock:
        stranger = frozenset({os.geteuid() + 1})
        threading.Thread(target=doors.serve, args=(sock, stranger, echo), daemon=True).start()
        line = dialing.connect(path, 5)
        with pytest.raises(DoorError):
            line.send({})
            if line.receive() is None:
                raise DoorError("hung up")


def test_a_missing_door_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DoorError, match="cannot be reached"):
        dialing.connect(tmp_path / "none.sock")
