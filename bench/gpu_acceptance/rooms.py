"""The two rooms as processes of this machine, under what production puts around them short of an engine.

Environment, process limits and the system-call filter are those of the containers; walls that only an engine can build
(no network, a read-only root, namespaces) are for `glovebox redteam`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gpu_acceptance import walled
from runner.core.base.mountable import SOURCE
from runner.core.policy import policy_files, seccomp
from trainer.wire import variables

POLICIES = policy_files.load(SOURCE / "policies")


@dataclass(frozen=True)
class Bench:
    """What the steps share: where things are, and the GPU they are about."""

    artifact: Path
    work: Path
    gpu: str
    upstream: Path | None = None
    budget: int = 60  # seconds of training of the step `upstream`

    def folder(self, name: str) -> Path:
        """A room's own folder, with the files a room finds."""
        made = self.work / name
        made.mkdir(parents=True, exist_ok=True)
        for file in ("telemetry.jsonl", "graph.json", "weights.safetensors"):
            (made / file).write_bytes(b"")
        return made

    def environment(self, folder: Path, **more: str) -> dict[str, str]:
        """A room's variables; nothing of the caller's but the way to Python and the driver."""
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        site = os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {
            **kept,
            "PYTHONPATH": site,
            "PYTHONUNBUFFERED": "1",
            "HOME": str(folder),
            variables.DEVICE: variables.CUDA,
            "CUDA_VISIBLE_DEVICES": self.gpu,  # as a container sees one GPU
            "OMP_NUM_THREADS": str(os.cpu_count() or 1),
            "GLOVEBOX_ARTIFACTS": str(self.artifact),
            "GLOVEBOX_OUT": str(folder),
            "GLOVEBOX_HANDED": str(folder),
            "GLOVEBOX_GO": str(folder / "go.json"),
            "GLOVEBOX_TRAIN_PY": str(folder / "train.py"),
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache" / "inductor"),
            "TRITON_CACHE_DIR": str(folder / "cache" / "triton"),
            **more,
        }

    def start(self, folder: Path, command: list[str], role: str = "trainer", **more: str) -> subprocess.Popen[bytes]:
        """A room at work; what it prints goes to its log."""
        with (folder / f"{role}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, walled.__file__, self._walls(role), *command],
                cwd=folder,
                env=self.environment(folder, **more),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _walls(self, role: str) -> str:
        """The file that says what is put around a process of this role."""
        path, box = self.work / f"walls-{role}.json", getattr(POLICIES.sandbox, role)
        limits = {"NOFILE": box.open_files, "FSIZE": box.file_bytes, "CORE": 0}
        path.write_text(json.dumps({"limits": limits, "seccomp": seccomp.profile(POLICIES.seccomp, role)}))
        return str(path)

    def run(self, folder: Path, command: list[str], role: str = "trainer", **more: str) -> float:
        """A room from its start to its end, in seconds; raises RoomFailed."""
        began = time.monotonic()
        code = self.start(folder, command, role, **more).wait(timeout=POLICIES.sandbox.trainer.max_seconds)
        if code:
            raise RoomFailed(f"{role} ended with {code}:\n{tail(folder / f'{role}.log')}")
        return time.monotonic() - began


class RoomFailed(RuntimeError):
    """A room did not end well; its last words are in the message."""


def tail(path: Path, most: int = 3000) -> str:
    """The end of a log."""
    return path.read_bytes()[-most:].decode(errors="replace")


def events(folder: Path) -> list[dict[str, Any]]:
    """What a trainer reported."""
    return [json.loads(line) for line in (folder / "telemetry.jsonl").read_text().splitlines()]


def phase(folder: Path, name: str) -> float:
    """Seconds from a trainer's start to a phase; raises RoomFailed if it never came."""
    for event in events(folder):
        if (event.get("event"), event.get("phase")) == ("phase", name):
            return float(event["seconds"])
    raise RoomFailed(f"no phase {name}:\n{tail(folder / 'trainer.log')}")


def attention(folder: Path) -> list[str]:
    """Which attention a trainer says ran."""
    return [str(event["kind"]) for event in events(folder) if event.get("event") == "attention"]


def summary(folder: Path) -> dict[str, float]:
    """Upstream's closing summary."""
    return {each["name"]: each["value"] for each in events(folder) if each.get("event") == "summary"}


def await_ready(folder: Path, process: subprocess.Popen[bytes], seconds: float = 120.0) -> float:
    """Seconds until a trainer stands by; raises RoomFailed."""
    began = time.monotonic()
    while time.monotonic() < began + seconds and process.poll() is None:
        if b"ready" in (folder / "telemetry.jsonl").read_bytes():
            return time.monotonic() - began
        time.sleep(0.02)
    raise RoomFailed(f"the trainer does not stand by:\n{tail(folder / 'trainer.log')}")


def release(folder: Path) -> None:
    """Let a room that stands by work."""
    (folder / "go.json").write_bytes(b'{"seed":42,"budget":null}\n')
