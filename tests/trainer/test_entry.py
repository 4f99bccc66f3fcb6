"""How a train.py is begun: by a process that imported ahead, or by one that imported nothing; never without its GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.core.base.mountable import SOURCE
from trainer import entry
from trainer.wire import device

PROCESSORS = len(os.sched_getaffinity(0))  # MKL begins no more threads than these
SEED = (SOURCE / "trainer" / "train.py").read_bytes()


# Which scripts ask for a process that has imported nothing


@pytest.mark.parametrize(
    "source",
    [
        b"os.environ['TORCHINDUCTOR_MAX_AUTOTUNE'] = '1'",
        b'os.environ["OMP_NUM_THREADS"] = "4"',
        b'os.environ |= {"CUDA_VISIBLE_DEVICES": ""}',
        b'os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")',
        b'os.putenv("MKL_NUM_THREADS", "1")',
        b"os.environ['TRITON_CACHE_DIR'] = '/tmp'",
        b'os.environ["PYTORCH_ALLOC_CONF"] = "x"\nos.environ["TORCH_COMPILE_DEBUG"] = "1"',
        b'os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"',
    ],
)
def test_a_variable_that_is_read_on_import_is_seen(source: bytes) -> None:
    assert entry.reads_on_import(source)


@pytest.mark.parametrize(
    "source",
    [
        SEED,
        b"",
        b'os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"',
        b'os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"',
        b'os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"',
        b"TORCH_SEED = 1  # a name that is in no quotes",
        b'os.environ["TORCHINDUCTOR" + "_MAX_AUTOTUNE"] = "1"',
        b'print("CUDA is fast")',
        b'"MY_OMP_NUM_THREADS"',
        b"\xff\xfe\x00",
    ],
)
def test_what_is_read_later_or_is_no_variable_is_not(source: bytes) -> None:
    assert not entry.reads_on_import(source)


# In a process of its own


class Room:
    """`python -m trainer.entry` as a container runs it, in folders of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.out, self.go, self.script = folder / "out", folder / "go.json", folder / "train.py"
        self.out.mkdir()

    def run(self, script: str, go: str | None = '{"seed": 123, "budget": 60}\n', **more: str) -> tuple[int, str]:
        """(exit code, stderr). Two threads, unless the script says otherwise."""
        self.script.write_text(script)
        if go is not None:
            self.go.write_text(go)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("GLOVEBOX_", "TORCH", "OMP_"))}
        ours = {"TRAIN_PY": self.script, "OUT": self.out, "GO": self.go}
        environment = kept | {f"GLOVEBOX_{key}": str(path) for key, path in ours.items()} | {"OMP_NUM_THREADS": "2"}
        done = subprocess.run(
            [sys.executable, "-m", "trainer.entry"],
            env=environment | more,
            cwd=SOURCE,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stderr

    def events(self) -> list[dict[str, Any]]:
        path = self.out / "telemetry.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def phases(self) -> list[str]:
        return [event["phase"] for event in self.events() if event["event"] == "phase"]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


SETS = """
import json, os, sys
early = "torch" in sys.modules
os.environ[{autotune}] = "1"
os.environ[{threads}] = "1"
import torch
import torch._inductor.config
found = [early, torch._inductor.config.max_autotune, torch.get_num_threads(), os.environ["GLOVEBOX_SEED"]]
with open(os.environ["GLOVEBOX_OUT"] + "/found", "w") as file:
    json.dump(found, file)
sys.exit(7)
"""


@pytest.mark.parametrize(
    ("autotune", "threads", "found"),
    [
        ("'TORCHINDUCTOR_MAX_AUTOTUNE'", "'OMP_NUM_THREADS'", [False, True, 1, "123"]),
        # The control: what is put together from parts is not seen, and comes too late.
        ("'TORCHINDUCTOR' + '_MAX_AUTOTUNE'", "'OMP' + '_NUM_THREADS'", [True, False, min(2, PROCESSORS), "123"]),
    ],
)
def test_variables_count_where_the_script_names_them_and_seed_and_exit_code_are_the_same(
    room: Room, autotune: str, threads: str, found: list[Any]
) -> None:
    code, said = room.run(SETS.format(autotune=autotune, threads=threads))
    assert code == 7, said
    assert json.loads((room.out / "found").read_text()) == found
    assert room.phases() == ["ready", "start"]


def test_a_crash_after_the_second_start_is_told_as_any_other(room: Room) -> None:
    code, said = room.run("import os\nos.environ['OMP_NUM_THREADS'] = '1'\n1 / 0\n")
    assert code == 1
    assert "ZeroDivisionError" in said
    (crash,) = [event for event in room.events() if event["event"] == "crash"]
    assert (crash["error"], crash["line"]) == ("ZeroDivisionError", 3)


def test_a_run_is_given_its_budget_and_tells_its_phases_and_that_it_diverged(room: Room) -> None:
    script = "import os\nassert os.environ['GLOVEBOX_TIME_BUDGET'] == '60'\nprint('step 1 | loss: nan')\n"
    code, said = room.run(script, GLOVEBOX_DEVICE="cpu")
    assert code == 0, said
    assert room.phases() == ["ready", "start", "done"]
    assert {"event": "diverged", "step": 1} in room.events()


# Where the bench promised a GPU and there is none

MARK = "import os\nopen(os.environ['GLOVEBOX_OUT'] + '/ran', 'w').close()\n"


@pytest.mark.parametrize("go", ['{"seed": 1}\n', '{"se'], ids=["released", "not yet"])
def test_a_room_without_its_gpu_ends_before_it_waits_for_work_or_reads_it(room: Room, go: str) -> None:
    code, said = room.run(MARK, go, GLOVEBOX_DEVICE="cuda", CUDA_VISIBLE_DEVICES="")
    assert code == device.NO_DEVICE == 75
    assert said.startswith("no GPU: ")
    assert room.events() == []
    assert not (room.out / "ran").exists()


def test_with_the_cpu_as_promised_the_same_script_runs(room: Room) -> None:
    code, said = room.run(MARK, GLOVEBOX_DEVICE="cpu", CUDA_VISIBLE_DEVICES="")
    assert code == 0, said
    assert "no GPU" not in said
    assert (room.out / "ran").exists()


@pytest.mark.parametrize(("opens", "code"), [(False, device.NO_DEVICE), (True, 0)])
def test_a_gpu_that_is_taken_away_while_the_room_waits_ends_it_before_the_script(
    room: Room, monkeypatch: pytest.MonkeyPatch, opens: bool, code: int
) -> None:
    done: list[str] = []
    monkeypatch.setenv("GLOVEBOX_OUT", str(room.out))
    monkeypatch.setattr(entry, "SCRIPT", room.script)
    room.script.write_text("")
    monkeypatch.setattr(entry.kernels_offline, "install", lambda: None)
    monkeypatch.setattr(entry.device, "there", lambda: True)
    monkeypatch.setattr(entry.device, "openable", lambda: done.append("looked") or opens)
    monkeypatch.setattr(entry.release, "wait", lambda: done.append("released") or {})
    monkeypatch.setattr(entry, "_prepare", lambda: done.append("prepared"))
    monkeypatch.setattr(entry, "_run", lambda: done.append("ran") or 0)
    assert entry.main() == code
    assert done == ["prepared", "released", "looked", *(["ran"] if opens else [])]


def test_scripts_run_where_they_may_write_and_find_themselves(room: Room) -> None:
    """146 of the public ones open a file by a relative name; /work is read-only in the container."""
    script = (
        "open('log.txt', 'a').write('x')\n"
        "import os\nos.makedirs('checkpoints')\n"
        "assert open('train.py').read() and os.path.samefile('train.py', __file__)\n"
        "assert os.listdir() and os.getcwd() != os.path.dirname(__file__)\n"
    )
    assert room.run(script)[0] == 0, room.events()
