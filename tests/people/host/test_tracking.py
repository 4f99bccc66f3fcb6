"""Runs as tracking tools keep them: each file is read again by the tool's own library."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from runner.core.base.errors import UsageError
from runner.core.base.values import Experiment, Status
from runner.people.host import tracking
from tests.people.pages.test_report import EVIL
from tests.samples import experiment

CURVE = [(0, 3.0), (10, 2.0)]


def rows() -> list[Experiment]:
    return [
        experiment(1, val_bpb=1.0, curve=CURVE),
        experiment(2, val_bpb=None, status=Status.CRASH, description=EVIL),
        experiment(3, val_bpb=0.9, curve=CURVE, description=EVIL, gain=0.1, probability=0.9),
    ]


def read(code: str, folder: Path) -> str:
    """What a tool's library says of a folder, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_tag_is_one_run_and_each_keep_another_with_its_curve() -> None:
    whole, *kept = tracking.series(rows(), "t")
    assert [step for step, _ in whole.points] == [1, 2, 3]
    assert [values.get("best") for _, values in whole.points] == [1.0, 1.0, 0.9]
    assert "val_bpb" not in whole.points[1][1]
    assert [one.name for one in kept] == ["t-1", "t-3"]
    assert kept[1].points == [(0, {"train_loss": 3.0}), (10, {"train_loss": 2.0}), (11, {"val_bpb": 0.9})]


def test_tensorboard_reads_its_own(tmp_path: Path) -> None:
    assert tracking.write("tensorboard", rows(), "t", tmp_path / "out") == 3
    code = (
        "import sys; from tensorboard.backend.event_processing.event_accumulator import EventAccumulator as E\n"
        "for name in ('t', 't-3'):\n"
        "    e = E(sys.argv[1] + '/' + name); e.Reload()\n"
        "    print({tag: [(s.step, round(s.value, 3)) for s in e.Scalars(tag)] for tag in e.Tags()['scalars']})\n"
    )
    text = read(code, tmp_path / "out")
    assert "'val_bpb': [(1, 1.0), (3, 0.9)]" in text
    assert "'train_loss': [(0, 3.0), (10, 2.0)]" in text


def test_mlflow_reads_its_own(tmp_path: Path) -> None:
    assert tracking.write("mlflow", rows(), "t", tmp_path / "out") == 3
    code = (
        "import sys; from mlflow import MlflowClient\n"
        "c = MlflowClient(tracking_uri='sqlite:///' + sys.argv[1] + '/mlflow.db')\n"
        "e = c.get_experiment_by_name('t')\n"
        "for r in c.search_runs([e.experiment_id]):\n"
        "    print(r.info.run_name, r.info.status, [(m.step, m.value) for m in c.get_metric_history(r.info.run_id, 'val_bpb')])\n"
    )
    text = read(code, tmp_path / "out")
    assert "t FINISHED [(1, 1.0), (3, 0.9)]" in text
    assert "t-3 FINISHED [(11, 0.9)]" in text


def test_weights_and_biases_reads_its_own(tmp_path: Path) -> None:
    assert tracking.write("wandb-offline", rows(), "t", tmp_path / "out") == 3
    runs = sorted((tmp_path / "out" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(runs) == 3
    # Their file is a log of their messages as LevelDB frames them: blocks of 32 KiB, records of checksum, length, kind.
    code = """
import sys, glob
from wandb.proto import wandb_internal_pb2 as p
for path in sorted(glob.glob(sys.argv[1] + '/wandb/offline-run-*/*.wandb')):
    data, at, whole = open(path, 'rb').read(), 7, b''
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(data[at + 4:at + 6], 'little'), data[at + 6]
        whole, at = whole + data[at + 7:at + 7 + size], at + 7 + size
        if kind not in (1, 4):
            continue
        r = p.Record.FromString(whole)
        whole = b''
        if r.WhichOneof('record_type') == 'run':
            print('run', r.run.display_name, r.run.project, r.run.run_group)
        if r.WhichOneof('record_type') == 'history':
            print({(i.key or '/'.join(i.nested_key)): i.value_json for i in r.history.item})
"""
    text = read(code, tmp_path / "out")
    assert "run t-3 glovebox t" in text
    assert "'train_loss': '2" in text
    kept = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path.name for path in kept if path.name in ("wandb-metadata.json", "diff.patch")]  # nothing of the host


def test_trackio_keeps_its_database_there(tmp_path: Path) -> None:
    assert tracking.write("trackio", rows(), "t", tmp_path / "out") == 3
    with sqlite3.connect(tmp_path / "out" / "t.db") as db:
        names = {name for (name,) in db.execute("SELECT DISTINCT run_name FROM metrics")}
    assert names == {"t", "t-1", "t-3"}


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        tracking.write("tensorboard", rows(), "t", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_library_that_is_missing_or_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_environment", lambda folder: {"PYTHONPATH": str(tracking.SOURCE)})
    monkeypatch.setattr(sys, "executable", _without(tmp_path, "tensorboard"))
    with pytest.raises(UsageError, match="is not installed"):
        tracking.write("tensorboard", rows(), "t", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(tracking, "series", lambda *_: [tracking.Series("/nowhere/\0", {}, [])])
    monkeypatch.undo()


def _without(folder: Path, package: str) -> str:
    """A Python that has everything but one package."""
    path = folder / "python"
    blocked = f"import sys; sys.modules[{package!r}] = None; import runpy; sys.argv = sys.argv[2:]"
    path.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "{blocked}; runpy.run_module(sys.argv[0], run_name=\'__main__\')" "$@"\n'
    )
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("tool", tracking.TOOLS)
def test_nothing_of_the_host_is_in_what_is_written(tmp_path: Path, tool: str) -> None:
    tracking.write(tool, rows(), "t", tmp_path / "out")
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file() or path.is_symlink()]
    assert left
    assert not [path for path in left if path.is_symlink()]
    here = [socket.gethostname(), str(tmp_path), f"{tmp_path.name}"]
    for path in left:
        text = path.read_bytes() + path.name.encode()
        assert not [word for word in here if len(word) > 3 and word.encode() in text], path


def test_experiments_of_lanes_are_all_written_in_order(tmp_path: Path) -> None:
    """Weights & Biases drops a step below the one before it, and says nothing."""
    some = [experiment(n, val_bpb=1.0 - n / 100, curve=[]) for n in (1, 3, 2, 5, 4)]
    assert [step for step, _ in tracking.series(some, "t")[0].points] == [1, 2, 3, 4, 5]


def test_a_tool_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "python"
    path.write_text("#!/bin/sh\nsleep 600 &\nsleep 600\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    monkeypatch.setattr(tracking, "_SECONDS", 1)
    with pytest.raises(UsageError, match="nothing came in 1 s"):
        tracking.write("tensorboard", rows(), "t", tmp_path / "out")
    assert not (tmp_path / "out").exists()
