"""What a call costs when a tag has 100, 1,000 and 10,000 experiments.

    python -m bench.scale [--rows 100,1000,10000] [--keep DIR] [--json]

A night of the real loop around stand-ins for the containers (bench/standin.py): everything that decides and records is
real. At each size: seconds that the loop takes for an answer besides training (the median of the last fifty), a
`history` of the agent, a page and a frame of `glovebox watch` in the process that has the tag open already; `history`,
`status`, `report` and `verify` as a person starts them; memory of the loop's process. `growth`: last size over the
second largest; of verify what a row costs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import standin
from runner.core.airlock import snapshot
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.base.values import Proposal, Telemetry
from runner.core.evidence.ledger import Ledger
from runner.core.policy import policy_files
from runner.people.pages import report, watch
from runner.rooms.desk.desk import Desk
from runner.rooms.desk.quota import Quota

TAG = "scale"
NOISE = 0.001
_LAST = 50  # experiments whose answers are timed
_REPEATS = 5
_TRUE = re.compile(rb"^# true (\S+)\n", re.M)
_CONSTANTS = re.compile(rb"^([A-Z_]{4,}) = (.*)$", re.M)
TELEMETRY = Telemetry(
    curve=[(step * 100, 9.0 - step / 10) for step in range(24)],
    summary={"num_steps": 2400.0, "total_tokens_M": 120.5, "num_params_M": 50.3, "peak_vram_mb": 45060.0, "depth": 8.0},
)


def score(text: bytes, before: int) -> float | None:
    """What the file says of itself, plus noise; one in forty crashes."""
    found = _TRUE.search(text)
    drawn = random.Random(hashlib.sha256(text + before.to_bytes(4, "big")).digest())  # noqa: S311 - a simulation
    if b"# crash" in text:
        return None
    return float(found.group(1) if found else 30.0) + drawn.gauss(0.0, NOISE)


def candidate(best: bytes, number: int) -> bytes:
    """Another constant, another true score: most ideas change nothing, some are worse, few are better."""
    drawn = random.Random(number)  # noqa: S311
    found = _TRUE.search(best)
    true = float(found.group(1) if found else 30.0)
    effect = drawn.choices([0.0, -abs(drawn.gauss(0, 4)), abs(drawn.gauss(0, 2))], [0.5, 0.4, 0.1])[0]
    text = _TRUE.sub(b"", best)
    names = _CONSTANTS.findall(text)
    name, value = drawn.choice(names)
    text = text.replace(name + b" = " + value, name + b" = " + value.split(b"  #")[0] + b"  # %d" % number, 1)
    crash = b"# crash %d\n" % number if drawn.random() < 1 / 40 else b""
    return b"# true %.6f\n" % (true - effect * NOISE) + crash + re.sub(rb"# crash \d+\n", b"", text)


def bench_of(folder: Path) -> Home:
    """A bench with a tiny artifact, and a leak budget as long as the night."""
    home = Home(folder / ".glovebox")
    if home.root.exists():
        return home
    standin.tiny(home)
    text = (SOURCE / "policies" / "metrics.yaml").read_text()
    text = re.sub(r"night_bits: \d+", "night_bits: 64000000", text)
    (home.root / "policies" / "metrics.yaml").write_text(text)
    return home


def grow(loop: Any, desk: Desk, rows: int) -> list[float]:
    """Run candidates until the tag has so many; seconds of each answer."""
    home, taken = loop.home, []
    snapshot.provide(home.work, os.getegid(), loop.best_source())
    while (last := loop.ledger.last_number(TAG)) < rows:
        if last == 0:
            loop.begin()
            snapshot.provide(home.work, os.getegid(), loop.best_source())
            continue
        home.work.write_bytes(candidate(home.work.read_bytes(), last))
        before = time.perf_counter()
        desk._experiment(f"idea {last}", Proposal())
        taken.append(time.perf_counter() - before)
        if last % 500 == 0:
            print(f"{last} experiments, {statistics.median(taken[-_LAST:]):.3f} s an answer", file=sys.stderr)
    return taken


def timed(call: Callable[[], object]) -> float:
    """Median seconds of a few calls, the first not counted: it may have to catch up."""
    call()
    taken = []
    for _ in range(_REPEATS):
        before = time.perf_counter()
        call()
        taken.append(time.perf_counter() - before)
    return statistics.median(taken)


def command(home: Home, *args: str) -> float:
    """Seconds of a command, as a person starts it."""
    environment = {**os.environ, "GLOVEBOX_HOME": str(home.root), "PYTHONPATH": str(SOURCE)}
    before = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "runner", *args], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"glovebox {' '.join(args)}: {done.stderr or done.stdout[-500:]}")
    return time.perf_counter() - before


def views(root: str) -> dict[str, float]:
    """Seconds of a page and of a frame of `watch`, in a process of their own that has read the tag before."""
    home = Home(Path(root))
    policies, console = policy_files.load(*home.policies), Console(width=100, file=open(os.devnull, "w"))  # noqa: SIM115
    looks = watch.Look(home, policies, Ledger(home.ledger, read_only=True), TAG)
    page = report.Page(home, Ledger(home.ledger, read_only=True), policies, TAG)
    frame = timed(lambda: console.print(watch.frame(looks.now(), 100, unicode=False)))
    return {"watch": frame, "report": timed(page.write)}


def measure(loop: Any, desk: Desk, answers: list[float]) -> dict[str, float]:
    """All figures at this size, in seconds and MiB."""
    home, rows = loop.home, loop.ledger.experiments(TAG)
    history = timed(lambda: desk._history({"verb": "history"}))
    resident = standin.resident()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        shown = pool.submit(views, str(home.root)).result()
    return {
        "rows": len(rows),
        "reruns": len(loop.ledger.reruns(TAG)),
        "keeps": sum(row.status == "keep" for row in rows),
        "answer": statistics.median(answers[-_LAST:]),
        "history": history,
        **shown,
        "history_command": command(home, "history", "--last", "20"),
        "status_command": command(home, "status", "--json"),
        "report_command": command(home, "report"),
        "verify": command(home, "verify"),
        "mib": resident,
    }


def main() -> int:
    """Measure and print; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="100,1000,10000")
    parser.add_argument("--keep", type=Path, help="Folder for the bench, kept; one that is there is gone on with.")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = bench_of(asked.keep or Path(name))
        loop = standin.loop(home, TAG, home.first().read_bytes(), score, TELEMETRY)
        desk = Desk(loop, home.work, Quota(None))
        found = []
        for rows in map(int, asked.rows.split(",")):
            found.append(measure(loop, desk, grow(loop, desk, rows)))
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    first, last = found[-2:] if len(found) > 1 else (found[0], found[0])
    growth = {name: round(last[name] / first[name], 3) for name in ("answer", "history", "report", "watch", "mib")}
    growth["verify"] = round(last["verify"] / last["rows"] / (first["verify"] / first["rows"]), 3)
    print(json.dumps({"growth": growth, "verify_s": round(last["verify"], 2), "sizes": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
