"""A bench that nobody may write to can still be looked at, and says what it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.core.base.errors import GloveboxError
from runner.core.base.home import SOURCE
from runner.core.evidence import ledger_file
from runner.core.evidence.ledger import Ledger


def unwritable(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a read-only file system: root may write into any folder, so the question is answered for it."""
    real: Callable[..., bool] = os.access
    monkeypatch.setattr(ledger_file.os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))


def book(path: Path) -> Ledger:
    made = Ledger(path)
    made.begin_run("t", "", "demo-1", "p")
    return made


def test_it_is_read_as_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.sqlite"
    book(path).close()
    unwritable(monkeypatch)
    assert Ledger(path, read_only=True).tags() == ["t"]
    assert [one.name for one in tmp_path.iterdir()] == [path.name]  # nothing was written beside it
    with pytest.raises(GloveboxError, match="the bench is read-only"):
        Ledger(path)


def test_what_is_not_merged_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.sqlite"
    code = f"""
import os
from pathlib import Path
from runner.core.evidence.ledger import Ledger
book = Ledger(Path({str(path)!r}))
book.begin_run("t", "", "demo-1", "p")
os._exit(0)  # as one that was killed
"""
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SOURCE)}, check=True)
    assert path.with_name(f"{path.name}-wal").stat().st_size
    unwritable(monkeypatch)
    assert Ledger(path, read_only=True).tags() == ["t"]
    path.with_name(f"{path.name}-shm").unlink()
    with pytest.raises(GloveboxError, match=r"left in the middle.*copy the bench"):
        Ledger(path, read_only=True)
