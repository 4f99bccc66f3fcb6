"""A long night in short: N tiny real experiments in containers; does anything grow?

    python -m bench.soak [--experiments N] [--standin] [--json]

An agent of two lines in the agent's container asks for N experiments, each a real training of about a second, through
the real supervisor, runner, launcher and broker. Measured: resident memory and open files of the three processes over
time, containers left over, and seconds per experiment. With --standin only the desk is real, with ledger, git and audit
chain (bench/standin.py): thousands of experiments in minutes. Exit 0 if memory of the last third is within 5% of the
first, open files and containers are back to where they were, and the last experiments cost at most a tenth more than
the first.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import docker

from bench import scale, standin
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.evidence import verify
from runner.core.evidence.ledger import Ledger
from runner.people.host import processes
from runner.rooms.desk.desk import Desk
from runner.rooms.desk.quota import Quota
from runner.rooms.launcher import containers

TAG = "soak"
PROCESSES = ("runner.rooms.desk", "runner.rooms.launcher", "runner.rooms.broker")
MEMORY_GROWTH, COST_GROWTH = 1.05, 1.1
_INTERVAL = 2.0  # seconds between two looks
# Every experiment is another file, none is better by more than luck: rule upstream, so that nothing is rerun.
_COMMAND = 'i=0; while i=$((i+1)); do printf "# %s\\n" $i >> /work/train.py; bench run "soak $i" || exit 0; done'
Sample = dict[str, tuple[float, int]]  # process: (MiB, open files)


class Watch:
    """Looks at the three processes from a thread."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.over = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self.over.set()
        self._thread.join(10)

    def _keep(self) -> None:
        while not self.over.wait(_INTERVAL):
            sample = look()
            if set(sample) == set(PROCESSES):
                self.samples.append(sample)


def look() -> Sample:
    """Memory and open files of our children, by module."""
    found: Sample = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            name = next((word for word in words if word in PROCESSES), None)
            if name is None or parent != os.getpid():
                continue
            found[name] = (standin.resident(folder.name), len(list((folder / "fd").iterdir())))
        except (OSError, IndexError, ValueError):
            continue  # it ended while we looked
    return found


def home_of(folder: Path, rule: str = "upstream", command: str = _COMMAND, seconds: int = 1) -> Home:
    """A bench with a tiny artifact, and policies for a rule and an agent's command."""
    home = standin.tiny(Home(folder / "bench"), seconds)
    own = home.root / "policies"
    for name in ("decision", "agent"):
        shutil.copyfile(SOURCE / "policies" / f"{name}.yaml", own / f"{name}.yaml")
    _edit(own / "decision.yaml", "rule: odds ", f"rule: {rule} ")
    agent = (own / "agent.yaml").read_text()
    start = agent.index("\ncommand:") + 1
    line = f"command: {json.dumps(['sh', '-c', command])}\n"
    (own / "agent.yaml").write_text(agent[:start] + line + agent[agent.index("\n", start) + 1 :])
    home.key.parent.mkdir(mode=0o700)
    home.key.write_text("soak-has-no-key\n")
    home.key.chmod(0o600)
    return home


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    if text.count(old) != 1:
        raise SystemExit(f"{path}: expected one {old!r}")
    path.write_text(text.replace(old, new))


def seed(folder: Path) -> Path:
    """A train.py that is small enough to train in a second."""
    text = (SOURCE / "trainer" / "train.py").read_text()
    for old, new in (("DEPTH = 8 if CUDA else 2", "DEPTH = 1"), ("else 2**14 ", "else 2**10 ")):
        if text.count(old) != 1:
            raise SystemExit(f"trainer/train.py: expected one {old!r}")
        text = text.replace(old, new)
    path = folder / "seed.py"
    path.write_text(text)
    return path


def soak(home: Home, seed_py: Path, count: int) -> Watch:
    """Run them all; raises SystemExit if the session fails."""
    settings: dict[str, Any] = {"tag": TAG, "seed": str(seed_py), "agent": "command", "max_experiments": count}
    watch, began = Watch(), time.monotonic()
    try:
        for event in processes.run(settings, home, home.key):
            if event["event"] == "finished":
                row = event["row"]
                spent = time.monotonic() - began
                print(f"[{spent:6.0f} s] {row['id']:4} {row['status']}", file=sys.stderr, flush=True)
            elif event["event"] == "failed" or (event["event"] == "exit" and event["code"]):
                raise SystemExit(f"the session failed: {event}")
    finally:
        watch.end()
    return watch


def result(home: Home, samples: list[Sample], client: docker.DockerClient) -> dict[str, Any]:
    """What grew, and whether that is too much."""
    third = max(1, len(samples) // 3)
    processes: dict[str, Any] = {}
    for name in PROCESSES:
        first = statistics.median(sample[name][0] for sample in samples[1 : third + 1] or samples)
        last = statistics.median(sample[name][0] for sample in samples[-third:])
        files = [sample[name][1] for sample in samples]
        head, tail = statistics.median(files[:third]), statistics.median(files[-third:])
        processes[name] = {
            "mib_first_third": round(first, 1),
            "mib_last_third": round(last, 1),
            "memory_ratio": round(last / first, 3),
            "files_first_third": head,
            "files_last_third": tail,
        }
    rows = Ledger(home.ledger, read_only=True).experiments(TAG)
    seconds = [row.seconds for row in rows]
    part = max(1, min(50, len(seconds) // 2))
    left = len(containers.of_bench(client, home.id))
    own = [row.seconds - row.train_seconds - row.eval_seconds for row in rows]
    document: dict[str, Any] = {
        "experiments": len(rows),
        "scored": sum(row.val_bpb is not None for row in rows),
        "processes": processes,
        "containers_left": left,
        "cost_ratio": round(statistics.mean(seconds[-part:]) / statistics.mean(seconds[:part]), 3),
        "seconds_per_experiment": round(statistics.mean(seconds), 2),
        "runner_share_first": round(statistics.mean(own[:part]), 3),
        "runner_share_last": round(statistics.mean(own[-part:]), 3),
        "verify_failures": verify.verify(home).failures,
    }
    grew = [
        p
        for p in processes.values()
        if p["memory_ratio"] > MEMORY_GROWTH or p["files_last_third"] > p["files_first_third"]
    ]
    document["ok"] = not (grew or left or document["verify_failures"] or document["cost_ratio"] > COST_GROWTH)
    return document


def without_containers(home: Home, count: int) -> dict[str, Any]:
    """The desk alone, as bench.scale runs it: its memory and what an answer costs, first third and last."""
    loop = standin.loop(home, scale.TAG, home.first().read_bytes(), scale.score, scale.TELEMETRY)
    desk, memory, seconds = Desk(loop, home.work, Quota(None)), list[float](), list[float]()
    for part in range(1, 31):
        seconds += scale.grow(loop, desk, count * part // 30)
        desk._history({"verb": "history"})
        memory.append(standin.resident())
    third = len(seconds) // 3
    cost = statistics.median(seconds[-third:]) / statistics.median(seconds[:third])
    grown = statistics.median(memory[-10:]) / statistics.median(memory[:10])
    failures = verify.verify(home).failures
    return {
        "experiments": count,
        "mib_first_third": round(statistics.median(memory[:10]), 1),
        "mib_last_third": round(statistics.median(memory[-10:]), 1),
        "memory_ratio": round(grown, 3),
        "cost_ratio": round(cost, 3),
        "seconds_per_experiment": round(statistics.mean(seconds), 4),
        "verify_failures": failures,
        "ok": not failures and grown <= MEMORY_GROWTH and cost <= COST_GROWTH,
    }


def main() -> int:
    """Soak and print; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=300)
    parser.add_argument("--standin", action="store_true", help="Stand-ins for the containers.")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.standin:
        with tempfile.TemporaryDirectory() as name:
            document = without_containers(scale.bench_of(Path(name)), asked.experiments)
        print(json.dumps(document))
        return 0 if document["ok"] else 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = home_of(folder)
        watch = soak(home, seed(folder), asked.experiments)
        document = result(home, watch.samples, docker.from_env())
    if not asked.json:
        for process, numbers in document["processes"].items():
            print(f"{process:16} {numbers}")
    print(json.dumps(document))
    return 0 if document["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
