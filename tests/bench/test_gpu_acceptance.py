"""What of the acceptance on a GPU needs none: figures, walls of a plain process, rooms (here without a GPU)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.gpu_acceptance import host, rooms, walled
from bench.gpu_acceptance.figures import Figure, above, below, holds, line, told
from runner.core.artifacts import store
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from trainer.wire import variables

QUICK = "import os, prepare\nprint('seed', os.environ['GLOVEBOX_SEED'], prepare.TIME_BUDGET)\n"


@pytest.fixture
def bench(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> rooms.Bench:
    """Rooms over the demo's artifact that are promised a CPU."""
    monkeypatch.setattr(variables, "CUDA", variables.CPU)
    statement = store.admit(home, store.latest(home))
    return rooms.Bench(home.store / statement.predicate.version, tmp_path / "work", "")


def test_a_figure_fails_beyond_its_limit_and_where_nothing_was_measured() -> None:
    assert below("x", 1.0, 2.0).ok is True
    for figure in (below("x", 2.0, 2.0), above("x", 1.0, 2.0), below("x", float("nan"), 2.0), holds("x", ok=False)):
        assert figure.ok is False
        assert line("step", figure).endswith("FAILED")
    assert above("x", 2.0, 2.0).ok is True


def test_a_steps_figures_come_back_as_they_were() -> None:
    source = "from bench.gpu_acceptance.figures import *; print('noise'); tell(below('x', 1.5, 2.0, 's'))"
    done = subprocess.run([sys.executable, "-c", source], cwd=SOURCE, capture_output=True, text=True, check=True)
    assert told(done.stdout) == [Figure("x", 1.5, "s", "< 2", True)]


WALLS = """
import errno, json, os, resource
found = {"files": resource.getrlimit(resource.RLIMIT_NOFILE)[0], "size": resource.getrlimit(resource.RLIMIT_FSIZE)[0]}
try:
    os.mkfifo("fifo")
    found["fifo"] = "made"
except OSError as error:
    found["fifo"] = errno.errorcode[error.errno]
print(json.dumps(found))
"""


def test_a_plain_room_has_productions_limits_and_filter(bench: rooms.Bench) -> None:
    assert walled.library() is not None, "libseccomp is part of what the tests need"
    folder = bench.folder("walls")
    bench.run(folder, ["-c", WALLS])
    found = json.loads((folder / "trainer.log").read_text())
    box = rooms.POLICIES.sandbox.trainer
    assert found == {"files": box.open_files, "size": box.file_bytes, "fifo": "EPERM"}


def test_without_the_filter_the_same_call_goes_through(bench: rooms.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: otherwise the test above would pass wherever a fifo cannot be made."""
    monkeypatch.setattr(rooms.seccomp, "profile", lambda *_: '{"defaultErrnoRet": 1, "syscalls": []}')
    source = (SOURCE / "bench" / "gpu_acceptance" / "walled.py").read_text()
    open_ = bench.work / "open.py"
    bench.work.mkdir(parents=True, exist_ok=True)
    open_.write_text(source.replace("    load(walls", "    # load(walls"))
    monkeypatch.setattr(walled, "__file__", str(open_))
    folder = bench.folder("walls")
    bench.run(folder, ["-c", WALLS])
    assert json.loads((folder / "trainer.log").read_text())["fifo"] == "made"


def test_a_room_stands_by_is_released_and_reports(bench: rooms.Bench) -> None:
    folder = bench.folder("room")
    (folder / "go.json").write_bytes(b"")
    (folder / "train.py").write_bytes(b"")
    process = bench.start(folder, ["-m", "trainer.entry"], GLOVEBOX_TIME_BUDGET="7")
    rooms.await_ready(folder, process)
    time.sleep(0.2)
    assert process.poll() is None  # it waits
    (folder / "train.py").write_text(QUICK)
    rooms.release(folder)
    assert process.wait(60) == 0, rooms.tail(folder / "trainer.log")
    assert "seed 42 7" in (folder / "trainer.log").read_text()
    assert rooms.phase(folder, "done") >= 0


def test_a_room_that_fails_says_what_it_said(bench: rooms.Bench) -> None:
    folder = bench.folder("room")
    (folder / "train.py").write_text("raise ValueError('its last words')\n")
    with pytest.raises(rooms.RoomFailed, match="its last words"):
        bench.run(folder, ["-m", "trainer.entry"])


@pytest.mark.parametrize(
    ("built", "capability", "fine"),
    [
        (["sm_75", "sm_80", "sm_90"], [8, 6], True),
        (["sm_75", "sm_80", "sm_90"], [9, 0], True),
        (["sm_75", "sm_80", "sm_90"], [12, 0], False),
        (["sm_90", "compute_120"], [12, 1], True),
        (["sm_75", "sm_80"], [7, 0], False),
        ([], [9, 0], False),
    ],
)
def test_torch_has_code_for_a_card_of_the_same_major_version_or_by_ptx(
    built: list[str], capability: list[int], fine: bool
) -> None:
    assert host._built(built, capability) is fine


def test_the_seed_of_smaller_cards_is_the_seed(tmp_path: Path) -> None:
    compile(host.SMALLER.format(gib=7.6) + host.SEED.read_text(), "train.py", "exec")
    assert host.SEED.read_text().count("64 * DEPTH") == 1  # what the step `compile` widens


def test_a_machine_without_a_gpu_is_told_so_and_fails() -> None:
    command = [sys.executable, "-m", "bench.gpu_acceptance", "--artifact", "/nonexistent"]
    done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no GPU" in done.stderr
