"""Logs, the best file and what words mean, as a person asks for them."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.ledger import Ledger
from runner.people.cli import records
from tests.core.evidence.test_checkpoints import bench as bench  # noqa: PLC0414 - a fixture
from tests.core.evidence.test_checkpoints import witness as witness  # noqa: PLC0414 - a fixture

Glovebox = Callable[..., tuple[int, str, str]]


def log(home: Home, text: bytes, room: str = "trainer", number: int = 2) -> Path:
    row = Ledger(home.ledger, read_only=True).experiments("t")[number - 1]
    home.run(row.run).mkdir(parents=True, exist_ok=True)
    path = home.run(row.run) / f"{room}.log"
    path.write_bytes(text)
    return path


# Logs


def test_show_names_the_logs_and_logs_prints_one(glovebox: Glovebox, bench: Home) -> None:
    path = log(bench, b"Traceback\nValueError: x\n")
    assert str(path) in glovebox("show", "2")[1].replace("\n", "")
    assert json.loads(glovebox("show", "2", "--json")[1])["logs"] == {"trainer": str(path)}
    code, out, err = glovebox("logs", "2", "trainer")
    assert (code, out) == (0, "Traceback\nValueError: x\n")
    assert "untrusted" in err
    assert glovebox("logs", "2", "trainer", "--lines", "1")[1] == "ValueError: x\n"
    assert "trainer" in glovebox("logs", "2")[1]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["logs", "1", "trainer"], "logs there are: none (gc removes"),
        (["logs", "2", "evaluator"], "logs there are: trainer"),
        (["logs", "2", "kitchen"], "one of: trainer, evaluator"),
        (["logs", "99"], "experiments: 1 to 3"),
        (["explain", "not_prooved"], "near: not_proved"),
        (["best", "--tag", "x"], "tags: t"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(glovebox: Glovebox, bench: Home, command: list[str], said: str) -> None:
    log(bench, b"x\n")
    code, out, err = glovebox(*command)
    assert (code, out) == (2, "")
    assert said in " ".join(err.split())


def test_a_log_that_is_a_link_or_a_pipe_is_not_read(glovebox: Glovebox, bench: Home, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hidden")
    path = log(bench, b"x\n")
    path.unlink()
    path.symlink_to(tmp_path / "secret")
    code, out, err = glovebox("logs", "2", "trainer")
    assert code != 0
    assert "hidden" not in out + err
    path.unlink()
    os.mkfifo(path)
    assert glovebox("logs", "2", "trainer")[0] == 2


HOSTILE = {
    b"\x1b[31mred\x1b[0m": "red",
    b"\x1b]0;title\x07after": "after",
    b"\x1b]52;c;cm0gLXJm\x1b\\after": "after",
    b"50%\r100%": "50%\n100%",
    b"\x9b31mC1": "\N{REPLACEMENT CHARACTER}31mC1",
    "\u202eright\u200b".encode(): " right ",
    b"\xff\x00": "\N{REPLACEMENT CHARACTER} ",
    "\x9b31mC1\t".encode(): " 31mC1 ",
}


@pytest.mark.parametrize("text", HOSTILE, ids=repr)
def test_escapes_and_what_nobody_sees_are_taken_out(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(text)
    assert "\n".join(records.printable(path, 200)) == HOSTILE[text]


@given(st.binary(max_size=300))
def test_nothing_but_printable_lines_comes_out(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_bytes(data)
    assert all(line.isprintable() for line in records.printable(path, 200))


def test_a_log_without_end_is_read_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(1 << 34)
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast\n")
    found = records.printable(path, 200)
    assert found[-1] == "last"
    assert max(map(len, found)) < 2100


# The best file


def test_the_best_file_is_written_out_and_nothing_is_overwritten(
    glovebox: Glovebox, bench: Home, tmp_path: Path
) -> None:
    code, out, err = glovebox("best", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert glovebox("best")[1] == found["train_py"] == f"x = {found['experiment']}\n"
    path = tmp_path / "best.py"
    assert glovebox("best", "-o", str(path))[0] == 0
    assert path.read_text() == found["train_py"]
    path.write_text("mine")
    code, _, err = glovebox("best", "-o", str(path))
    assert code == 2
    assert "is there already" in err
    assert path.read_text() == "mine"


# Words


def test_words_are_explained(glovebox: Glovebox) -> None:
    assert "looks ahead" in glovebox("explain", "not_proved")[1]
    every = json.loads(glovebox("explain", "--json")[1])
    assert {"keep", "oom", "not_proved"} <= set(every)


# What a red team found: a restored bench may be a stranger's


HOSTILE_TEXT = "\x1b]0;pwned\x07[link=http:a]q[/x]\n"


def test_nothing_of_a_hostile_ledger_or_commit_reaches_a_terminal(glovebox: Glovebox, bench: Home) -> None:
    with sqlite3.connect(bench.ledger) as db:
        db.execute("UPDATE runs SET started = ?", ("\x1b]0;[/x]\x07[b]q",))
        db.execute("UPDATE experiments SET row = json_set(row, '$.lane', ?) WHERE id = 2", (HOSTILE_TEXT,))
    for command in (["tags"], ["show", "2"]):
        code, out, err = glovebox(*command)
        assert code == 0, err
        assert "\x1b" not in out
        assert "\x07" not in out
    assert "]0;[/x]" in glovebox("tags")[1]


def test_nothing_of_a_hostile_train_py_moves_a_cursor(glovebox: Glovebox, bench: Home) -> None:
    """Its hash is right: the whole bench is a stranger's."""
    data = b"x = 1  # \x1b]0;pwned\x07\r\n"
    commit = GitLine(bench.line).commit("t", 9, data, "x")
    with sqlite3.connect(bench.ledger) as db:
        text = "UPDATE experiments SET row = json_set(row, '$.commit', ?, '$.snapshot', ?) WHERE id > 1"
        db.execute(text, (commit, hashlib.sha256(data).hexdigest()))
    out = glovebox("show", "2")[1]
    assert "x = 1  # " in out
    assert "\x1b" not in out
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "runner", "best"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "GLOVEBOX_HOME": str(bench.root)}
    done = subprocess.run(command, env=environment, stdout=theirs, cwd=bench.root.parent, check=False)
    os.close(theirs)
    seen = os.read(ours, 4096)
    os.close(ours)
    assert done.returncode == 0
    assert seen.startswith(b"x = 1  # ")
    assert b"\x1b" not in seen
    assert b"pwned" in seen


def test_a_commit_that_is_not_the_train_py_of_its_row_is_not_the_best(glovebox: Glovebox, bench: Home) -> None:
    other = GitLine(bench.line).commit("t", 9, b"evil = 1\n", "x")
    with sqlite3.connect(bench.ledger) as db:
        db.execute("UPDATE experiments SET row = json_set(row, '$.commit', ?)", (other,))
    code, out, err = glovebox("best")
    assert code == 8
    assert "evil" not in out
    assert "glovebox verify" in err


def test_a_log_that_is_a_link_is_not_named(glovebox: Glovebox, bench: Home, tmp_path: Path) -> None:
    path = log(bench, b"x\n")
    path.unlink()
    path.symlink_to(tmp_path)
    assert str(path) not in glovebox("show", "2")[1]
