"""Full disks, broken pages, folders that cannot be written, clocks that jump: a clear error, and no record lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.core.base.errors import GloveboxError
from runner.core.base.home import Home
from runner.core.base.values import Status
from runner.core.evidence import disk_reserve, recorder, verify
from runner.core.evidence.ledger import Ledger
from runner.core.policy.policy_files import Policies
from runner.people.cli import status
from tests.rooms.desk.test_reruns import Bench

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(prepared: Home, tmp_path: Path) -> Iterator[Home]:
    """A bench on a file system of its own, 96 MiB; needs root, as make test has."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(mount)], check=True)
    try:
        home = Home(mount / ".glovebox")
        shutil.copytree(prepared.root, home.root)
        yield home
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def fill(home: Home) -> None:
    """Leave not a byte."""
    with (home.root / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * (1 << 20))
        except OSError:
            pass
        try:
            while True:
                file.write(b"x")
        except OSError:
            pass


def test_a_disk_that_fills_up_costs_no_record(small_disk: Home, policies: Policies) -> None:
    bench = Bench(small_disk, policies)
    bench.experiment("a = 1\n", s42=2.0)
    disk_reserve.hold(small_disk)
    real = bench.recorder._commit

    def commit(row: object, engines: object) -> None:
        fill(small_disk)
        real(row, engines)  # type: ignore[arg-type]

    bench.recorder._commit = commit  # type: ignore[method-assign]
    with pytest.raises(GloveboxError, match=r"the disk is full; experiment 2 is recorded.*glovebox gc"):
        bench.experiment("b = 2\n", s42=3.0)
    rows = bench.ledger.experiments("t")
    assert [row.val_bpb for row in rows] == [2.0, 3.0]
    assert rows[1].status is Status.DISCARD
    found = verify.verify(small_disk)
    assert found.failures == []
    assert not disk_reserve.place(small_disk).exists()
    with pytest.raises(GloveboxError, match="the disk is full"):
        fill(small_disk)
        disk_reserve.hold(small_disk)
    (small_disk.root / "filler").unlink()
    disk_reserve.hold(small_disk)
    assert disk_reserve.place(small_disk).stat().st_size == disk_reserve.SIZE


def test_without_the_reserve_the_record_would_be_lost(small_disk: Home, policies: Policies) -> None:
    """The positive control."""
    bench = Bench(small_disk, policies)
    bench.experiment("a = 1\n", s42=2.0)
    real = bench.recorder._commit

    def commit(row: object, engines: object) -> None:
        fill(small_disk)
        real(row, engines)  # type: ignore[arg-type]

    bench.recorder._commit = commit  # type: ignore[method-assign]
    with pytest.raises((GloveboxError, OSError, sqlite3.Error)):
        bench.experiment("b = 2\n", s42=3.0)
    assert verify.verify(small_disk).failures or bench.ledger.open_numbers("t")


def test_an_error_that_is_not_a_full_disk_keeps_the_reserve(home: Home) -> None:
    disk_reserve.hold(home)
    assert disk_reserve.give_up(home) is False
    assert disk_reserve.place(home).exists()


def test_a_broken_page_is_named_before_anything_runs(home: Home, policies: Policies) -> None:
    bench = Bench(home, policies)
    for number in range(40):
        bench.experiment(f"a = {number}\n", s42=2.0 + number)
    bench.ledger._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    bench.ledger.close()
    with home.ledger.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(2048))
    with pytest.raises(GloveboxError, match=r"not a usable ledger.*glovebox restore"):
        Ledger(home.ledger)
    with pytest.raises(GloveboxError, match=r"not a usable ledger"):
        Ledger(home.ledger, read_only=True)


def test_a_results_folder_that_cannot_be_written_is_an_error_and_loses_no_row(home: Home, policies: Policies) -> None:
    bench = Bench(home, policies)
    (home.tag("t") / "results.tsv").mkdir(parents=True)
    with pytest.raises(OSError, match=r"results\.tsv"):
        bench.experiment("a = 1\n", s42=2.0)
    assert len(bench.ledger.experiments("t")) == 1
    (home.tag("t") / "results.tsv").rmdir()
    bench.recorder.reconcile()
    assert verify.verify(home).failures == []


def test_a_clock_that_jumps_back_changes_no_order(
    home: Home, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(home, policies)
    bench.experiment("a = 1\n", s42=2.0)
    monkeypatch.setattr(recorder, "now", lambda: "1999-12-31T23:59:59+00:00")
    bench.experiment("b = 2\n", s42=3.0)
    bench.ledger.begin_run("later", "1999-12-31T23:59:59+00:00", "demo-1", policies.digest)
    assert [row.id for row in bench.ledger.experiments("t")] == [1, 2]
    assert bench.ledger.tags()[0] == "later"
    assert verify.verify(home).failures == []
    assert status.facts(bench.ledger, "t", [])["best"] == 2.0
