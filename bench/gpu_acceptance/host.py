"""Steps that watch rooms from outside. Nothing here touches a GPU itself: a context of ours would be in the figures."""

from __future__ import annotations

import json
import os
import signal
import stat
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.gpu_acceptance import rooms, walled
from bench.gpu_acceptance.figures import Figure, above, below, holds, measured, noted
from bench.gpu_acceptance.rooms import Bench
from runner.core.base import gpus, nvidia
from runner.core.base.mountable import SOURCE
from runner.core.decision import clock
from runner.rooms.launcher import gpu as lending

SEED = SOURCE / "trainer" / "train.py"
_TORCH = (
    "import json, torch; there = torch.cuda.is_available(); "
    "print(json.dumps([torch.__version__, torch.version.cuda, there, torch.cuda.get_arch_list() if there else [], "
    "list(torch.cuda.get_device_capability()) if there else []]))"
)


def probe(bench: Bench) -> Iterator[Figure]:
    """What is here."""
    driver, card = nvidia.driver(), gpus.card(bench.gpu)
    yield noted("card", f"{card.name}, {card.memory_mib} MiB")
    yield noted("driver", f"{driver.version}, CUDA {'.'.join(map(str, driver.cuda))}" if driver else "none")
    command = [sys.executable, "-c", _TORCH]
    environment = bench.environment(bench.folder("probe"))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    version, cuda, there, built_for, capability = json.loads(done.stdout.splitlines()[-1])
    yield noted("torch", f"{version}, CUDA {cuda}")
    yield holds("torch sees the GPU", there)
    yield holds("torch has code for it", _built(built_for, capability), ".".join(map(str, capability)))
    yield holds("NVML and torch agree on it", card.capability == tuple(capability))
    yield holds("MIG is off", not card.mig)
    modes = {f"{stat.S_IMODE(os.stat(path).st_mode):o}" for path in Path("/dev").glob("nvidia[0-9]*")}
    yield noted("mode of /dev/nvidia*", ", ".join(sorted(modes)))
    now = nvidia.use(bench.gpu)
    yield measured("memory in use now", float("nan") if now.memory_mib is None else now.memory_mib, "MiB")
    yield holds("nothing computes on it", not now.processes, f"{len(now.processes)} processes")
    yield holds("the lock can be taken", os.access(lending.lock_path(bench.gpu).parent, os.W_OK))
    yield noted("system-call filter", "policies/seccomp.yaml" if walled.library() else "none: no libseccomp here")
    yield noted("processors of its NUMA node", len(card.processors) or "not known")


def _built(architectures: list[str], capability: list[int]) -> bool:
    """Whether one of sm_90, sm_90a, compute_90 runs on a GPU (same major, not later minor; PTX on any later)."""
    major, minor = capability
    for name in architectures:
        kind, _, number = name.partition("_")
        digits = number.rstrip("af")
        built = (int(digits[:-1]), int(digits[-1]))
        if (kind == "compute" and built <= (major, minor)) or (built[0] == major and built[1] <= minor):
            return True
    return False


STANDBY = """
import json, os, time
began = time.monotonic()
os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
import torch
early = torch.cuda.is_initialized()
torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
first = time.monotonic() - began
expandable = torch.cuda.memory._snapshot()["allocator_settings"]["expandable_segments"]
said = {"early": early, "first": first, "expandable": expandable}
open(os.environ["GLOVEBOX_OUT"] + "/said.json", "w").write(json.dumps(said))
"""
TUNED = """
import json, os
os.environ["TORCHINDUCTOR_MAX_AUTOTUNE"] = "1"
import torch._inductor.config as config
open(os.environ["GLOVEBOX_OUT"] + "/said.json", "w").write(json.dumps(config.max_autotune))
"""


def standby(bench: Bench) -> Iterator[Figure]:
    """A trainer that waits holds nothing of the GPU, and what a candidate sets still counts."""
    before = nvidia.use(bench.gpu)
    for name, script in (("alloc", STANDBY), ("tuned", TUNED)):
        folder = bench.folder(f"standby-{name}")
        (folder / "go.json").write_bytes(b"")
        (folder / "train.py").write_bytes(b"")
        process = bench.start(folder, ["-m", "trainer.entry"])
        ready = rooms.await_ready(folder, process)
        if name == "alloc":
            time.sleep(0.5)
            waiting = nvidia.use(bench.gpu)
            yield measured("start to standing by", ready, "s")
            yield holds("a waiting trainer computes nothing", process.pid not in waiting.processes)
            yield below("memory of a waiting trainer (a context: 300)", _more(before, waiting), 32, "MiB")
        (folder / "train.py").write_text(script)
        rooms.release(folder)
        if process.wait(60):
            raise rooms.RoomFailed(rooms.tail(folder / "trainer.log"))
        said = json.loads((folder / "said.json").read_text())
        if name == "tuned":
            yield holds("TORCHINDUCTOR_MAX_AUTOTUNE counts", said is True)
        else:
            yield holds("CUDA is not initialised before train.py", not said["early"])
            yield holds("PYTORCH_ALLOC_CONF counts", said["expandable"] is True)
            yield below("train.py's start to its first CUDA operation", said["first"], 5, "s")


def _more(before: nvidia.Use, now: nvidia.Use) -> float:
    known = before.memory_mib is not None and now.memory_mib is not None
    return (now.memory_mib or 0) - (before.memory_mib or 0) if known else float("nan")


def compile(bench: Bench) -> Iterator[Figure]:
    """Cold, warm, and warm with another width: every one must fit the clock that any of them would set."""
    budget, beyond, wider = 10, dict[str, float](), SEED.read_text().replace("64 * DEPTH", "96 * DEPTH")
    for name, source in (("cold", SEED.read_text()), ("warm", SEED.read_text()), ("wider", wider)):
        folder = bench.folder(f"compile-{name}")
        (folder / "train.py").write_text(source)
        with watched(bench) as seen:
            seconds = bench.run(folder, ["-m", "trainer.entry"], GLOVEBOX_TIME_BUDGET=str(budget), **_shared(bench))
        beyond[name] = seconds - budget
        told = rooms.summary(folder)
        yield measured(f"{name}: seconds beyond the budget", beyond[name], "s")
        yield measured(f"{name}: tokens a second", told["total_tokens_M"] * 1e6 / told["training_seconds"])
        yield noted(f"{name}: attention", ", ".join(rooms.attention(folder)) or "none")
        yield measured(f"{name}: processes and threads, most", seen.tasks)
        yield measured(f"{name}: memory of the room, most", seen.resident / 2**30, "GiB")
        yield measured(f"{name}: memory of the GPU, most", seen.gpu_mib / 2**10, "GiB")
    for name in beyond:
        limit = clock.clock(rooms.POLICIES.decision, 300.0, beyond["warm"]).allowance
        yield below(f"{name} within the clock a warm baseline sets", beyond[name], limit, "s")
    yield below("processes and threads", seen.tasks, rooms.POLICIES.sandbox.trainer.pids)


def _shared(bench: Bench) -> dict[str, str]:
    """Compiled code that several runs have in common."""
    cache = bench.work / "compiled"
    return {"TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"), "TRITON_CACHE_DIR": str(cache / "triton")}


SMALLER = """
import torch
torch.cuda.set_per_process_memory_fraction(min(1.0, {gib} * 2**30 / torch.cuda.get_device_properties(0).total_memory))
real = torch.cuda.get_device_properties
class Smaller:
    total_memory = int({gib} * 2**30)
    def __getattr__(self, name): return getattr(real(0), name)
torch.cuda.get_device_properties = lambda *_: Smaller()
"""


def fits(bench: Bench) -> Iterator[Figure]:
    """The seed on smaller cards: this one, with as much of its memory as they have."""
    for gib in (8, 24):
        folder = bench.folder(f"fits-{gib}")
        (folder / "train.py").write_text(SMALLER.format(gib=gib * 0.95) + SEED.read_text())
        with watched(bench) as seen:
            bench.run(folder, ["-m", "trainer.entry"], GLOVEBOX_TIME_BUDGET="4")
        yield holds(f"{gib} GiB: trains and hands over", (folder / "graph.json").stat().st_size > 0)
        yield below(f"{gib} GiB: memory, most", seen.gpu_mib / 1024, gib, "GiB")


@dataclass
class Seen:
    """The most of it."""

    tasks: int = 0
    resident: int = 0  # bytes, of all processes of the room
    gpu_mib: int = 0
    polls: list[float] = field(default_factory=list)  # seconds each


@contextmanager
def watched(bench: Bench, interval: float = 0.25, *, gpu: bool = True) -> Iterator[Seen]:
    """Look at our children, and at the GPU, until the block ends."""
    seen, over = Seen(), threading.Event()

    def keep() -> None:
        while not over.wait(interval):
            tasks, resident = _children(os.getpid())
            seen.tasks, seen.resident = max(seen.tasks, tasks), max(seen.resident, resident)
            if gpu:
                began = time.monotonic()
                seen.gpu_mib = max(seen.gpu_mib, nvidia.use(bench.gpu).memory_mib or 0)
                nvidia.pace(bench.gpu)
                seen.polls.append(time.monotonic() - began)

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _children(pid: int) -> tuple[int, int]:
    """(tasks, resident bytes) of all descendants of a process."""
    tasks = resident = 0
    with suppress(OSError, ValueError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                more, size = _children(int(child))
                own = int(Path(f"/proc/{child}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                threads = len(list(Path(f"/proc/{child}/task").iterdir()))
                tasks, resident = tasks + threads + more, resident + own + size
    return tasks, resident


def watch(bench: Bench) -> Iterator[Figure]:
    """What looking at the GPU each second costs the training."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    polls: list[float] = []
    for looked in (False, True, True, False):
        folder = bench.folder(f"watch-{looked}-{len(rates[looked])}")
        (folder / "train.py").write_text(SEED.read_text())
        with watched(bench, 1.0, gpu=looked) as seen:
            bench.run(folder, ["-m", "trainer.entry"], GLOVEBOX_TIME_BUDGET="8", **_shared(bench))
        told = rooms.summary(folder)
        rates[looked].append(told["total_tokens_M"] * 1e6 / told["training_seconds"])
        polls += seen.polls
    mean = {looked: statistics.mean(found) for looked, found in rates.items()}
    yield measured("tokens a second, not looked at", mean[False])
    yield above("share of it when looked at each second", mean[True] / mean[False], 0.99)
    yield below("one look", 1000 * statistics.median(polls), 50, "ms")


HOLD = """
import time, torch
kept = torch.empty({bytes}, dtype=torch.uint8, device="cuda").fill_(1)
torch.cuda.synchronize()
print("holding", flush=True)
time.sleep(600)
"""


def leave(bench: Bench) -> Iterator[Figure]:
    """How soon a trainer that is killed has left the GPU."""
    card = gpus.card(bench.gpu)
    held = int(0.5 * (card.memory_mib or 8192)) << 20
    folder = bench.folder("leave")
    (folder / "train.py").write_text(HOLD.format(bytes=held))
    before = nvidia.use(bench.gpu)
    process = bench.start(folder, ["-m", "trainer.entry"])
    began = time.monotonic()
    while b"holding" not in (folder / "trainer.log").read_bytes():
        if process.poll() is not None or time.monotonic() > began + 120:
            raise rooms.RoomFailed(rooms.tail(folder / "trainer.log"))
        time.sleep(0.05)
    full = nvidia.use(bench.gpu)
    yield measured("memory held", _more(before, full) / 2**10, "GiB")
    yield holds("the driver names who computes", bool(full.processes - before.processes))
    os.killpg(process.pid, signal.SIGKILL)
    began = time.monotonic()
    process.wait()
    while (now := nvidia.use(bench.gpu)).processes - before.processes or _more(before, now) > 64:
        if time.monotonic() > began + lending.SETTLE_SECONDS:
            break
        time.sleep(0.02)
    yield below("SIGKILL to an idle GPU", time.monotonic() - began, lending.SETTLE_SECONDS / 4, "s")
