"""Bad input: one clear line with what, where and how to fix it, a documented exit code, nothing lost."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from runner.core.base import locks
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.evidence.ledger import Ledger
from runner.rooms.launcher import containers
from tests.samples import begun

Glovebox = Callable[..., tuple[int, str, str]]
SEED = SOURCE / "trainer" / "train.py"


def one_line(err: str) -> str:
    """The error: the last line, and the only one that starts with the program's name."""
    lines = [line for line in err.strip().splitlines() if line.startswith("glovebox: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert "(fix: " in lines[0]
    return lines[0]


def own_policies(home: Home) -> Path:
    return Path(shutil.copytree(SOURCE / "policies", home.root / "policies", dirs_exist_ok=True))


def test_no_bench_here(glovebox: Glovebox, home: Home, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = glovebox("status", env={"GLOVEBOX_HOME": str(tmp_path / "empty")})
    assert code == 3
    assert "glovebox init" in one_line(err)


def test_no_experiment_yet(glovebox: Glovebox) -> None:
    code, _, err = glovebox("status")
    assert code == 2
    assert "glovebox run" in one_line(err)


def test_a_bad_tag_is_wrong_usage(glovebox: Glovebox) -> None:
    for tag in ("../up", "UPPER", "a b", "-x", ""):
        code, _, err = glovebox("run", f"--tag={tag}")
        assert code == 2, err


@pytest.mark.engine
def test_unknown_policy_key(glovebox: Glovebox, home: Home) -> None:
    path = own_policies(home) / "sandbox.yaml"
    path.write_text(path.read_text() + "network: host\n")
    code, _, err = glovebox("run", "--tag", "t", "--train-py", str(SEED))
    assert code == 3
    assert "network" in one_line(err)
    assert "sandbox.yaml:" in one_line(err)


@pytest.mark.engine
def test_duplicate_policy_key(glovebox: Glovebox, home: Home) -> None:
    path = own_policies(home) / "decision.yaml"
    path.write_text(path.read_text() + "rule: upstream\n")
    code, _, err = glovebox("run", "--tag", "t", "--train-py", str(SEED))
    assert code == 3
    assert "duplicate key 'rule'" in one_line(err)


@pytest.mark.engine
def test_missing_artifact(glovebox: Glovebox, home: Home) -> None:
    shutil.rmtree(home.artifacts)
    shutil.rmtree(home.store)  # with a copy there, the source is not asked again
    code, _, err = glovebox("run", "--tag", "t", "--train-py", str(SEED))
    assert code == 4
    assert "glovebox prepare" in one_line(err)


@pytest.mark.engine
def test_altered_artifact(glovebox: Glovebox, home: Home) -> None:
    shutil.rmtree(home.store)
    with (home.artifacts / "demo-1" / "val" / "rows.npy").open("ab") as file:
        file.write(b"x")
    code, _, err = glovebox("run", "--tag", "t", "--train-py", str(SEED))
    assert code == 4
    assert "rows.npy" in one_line(err)


@pytest.mark.parametrize("command", [("run", "--train-py", str(SEED)), ("up", "--agent", "scripted")])
def test_no_engine(glovebox: Glovebox, command: tuple[str, ...]) -> None:
    """Nor does `up` wait for one that never answered."""
    code, _, err = glovebox(*command, "--tag", "t", env={"DOCKER_HOST": "unix:///nonexistent.sock"}, timeout=30)
    assert code == 5
    assert "no container engine answers" in one_line(err)


@pytest.mark.engine
def test_engine_too_old(glovebox: Glovebox, home: Home) -> None:
    path = own_policies(home) / "sandbox.yaml"
    path.write_text(path.read_text().replace('minimum_engine: "24.0"', 'minimum_engine: "99.0"'))
    code, _, err = glovebox("run", "--tag", "t", "--train-py", str(SEED))
    assert code == 5
    assert "older than 99.0" in one_line(err)


@pytest.mark.engine
def test_missing_image(glovebox: Glovebox, home: Home) -> None:
    path = own_policies(home) / "sandbox.yaml"
    path.write_text(path.read_text().replace("glovebox/trainer:dev", "glovebox/none:dev"))
    code, _, err = glovebox("run", "--tag", "t", "--train-py", str(SEED))
    assert code == 5
    assert "make images" in one_line(err)


@pytest.mark.engine
@pytest.mark.parametrize("kind", ["symlink", "fifo", "10 MB", "binary", "missing", "directory"])
def test_a_train_py_that_is_not_a_plain_text_file(glovebox: Glovebox, home: Home, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "train.py"
    make = {
        "symlink": lambda: path.symlink_to(SEED),
        "fifo": lambda: os.mkfifo(path),
        "10 MB": lambda: path.write_bytes(b"#" * (10 << 20)),
        "binary": lambda: path.write_bytes(bytes(range(256))),
        "missing": lambda: None,
        "directory": path.mkdir,
    }
    make[kind]()
    code, _, err = glovebox("run", "--tag", "t", "--train-py", str(path), timeout=60)
    # A path that leads nowhere is wrong usage; a file that is there and unfit is refused for what it is.
    assert code == (2 if kind == "missing" else 7), err
    assert str(path) in one_line(err)
    assert Ledger(home.ledger).experiments("t") == []


@pytest.mark.engine
def test_a_bench_that_is_already_running(glovebox: Glovebox, home: Home) -> None:
    with (home.root / "runner.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("tag night pid 1 namespace 1\n")
        file.flush()
        code, _, err = glovebox("run", "--tag", "t", "--train-py", str(SEED))
        assert code == 6
        assert "tag night" in one_line(err)
        assert "glovebox stop" in one_line(err)
    assert glovebox("stop")[1].strip() == "nothing is running"


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("how", ["stop", "interrupt", "kill"])
def test_a_run_that_is_stopped_or_killed_loses_nothing(
    glovebox: Glovebox, home: Home, engine: docker.DockerClient, tmp_path: Path, how: str
) -> None:
    begun(glovebox, home)
    sleeper = tmp_path / "sleep.py"
    sleeper.write_text("import time\ntime.sleep(600)\n")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a child of one that ignores it would, too
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", "run", "--tag", "t", "--train-py", str(sleeper)],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "GLOVEBOX_HOME": str(home.root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 180
    while not any(path.stat().st_size for path in (home.root / "runs").glob("*/trainer.go.json")):  # one is at work
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    if how == "stop":
        assert glovebox("stop")[0] == 0
    else:
        process.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
    process.communicate(timeout=180)
    deadline = time.monotonic() + 180
    while locks.held(home.runner_lock):  # its children notice and leave
        assert time.monotonic() < deadline
        time.sleep(0.1)
    crash = tmp_path / "crash.py"
    crash.write_text("1 / 0\n")
    code, out, err = glovebox("run", "--tag", "t", "--train-py", str(crash))
    assert code == 0, err
    rows = json.loads(glovebox("status", "--json")[1])["experiments"][1:]
    assert [(row["status"], row["reason"]) for row in rows] == [("crash", "interrupted"), ("crash", "exception")]
    assert rows[1]["crash"] == {
        "error": "ZeroDivisionError",
        "line": 1,
        "template": "division",
        "message": "division by zero",
    }
    assert glovebox("verify")[0] == 0
    assert containers.of_bench(engine, home.id) == []


@pytest.mark.engine
@pytest.mark.slow
def test_a_run_that_is_told_to_stop_after_lets_its_experiment_end(
    glovebox: Glovebox, home: Home, engine: object
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", "run", "--tag", "t", "--agent", "scripted", "--more", "5"],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "GLOVEBOX_HOME": str(home.root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 180
    while not any(path.stat().st_size for path in (home.root / "runs").glob("*/trainer.go.json")):  # one is at work
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    code, out, err = glovebox("stop", "--after")
    assert (code, out.strip()) == (0, "t ends after the experiment in progress"), err
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    rows = json.loads(glovebox("status", "--json")[1])["experiments"]
    assert [(row["status"], row["reason"]) for row in rows] == [("keep", None)]
    assert glovebox("verify")[0] == 0
    assert glovebox("stop", "--after")[1].strip() == "nothing is running"
