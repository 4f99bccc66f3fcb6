"""Two lanes against one: how many experiments an hour, on this machine's cores cut in two.

    python -m bench.lanes [--experiments N] [--json]

The same tiny experiments as in bench.soak, first on one half of the cores, then on both halves at a time, each with an
agent of its own. The last line is one JSON object; ratio: experiments an hour of two lanes over one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import soak
from runner.core.base.home import Home
from runner.core.base.launching import Lane
from runner.core.evidence import verify
from runner.core.evidence.ledger import Ledger
from runner.people.host import processes


def halves() -> tuple[Lane, Lane]:
    """The cores of this machine as two lanes; raises SystemExit where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("two lanes need two cores")
    middle = len(cores) // 2
    names = [",".join(map(str, some)) for some in (cores[:middle], cores[middle:])]
    return Lane(number=0, cores=names[0]), Lane(number=1, cores=names[1])


def run(home: Home, seed: Path, tag: str, lanes: tuple[Lane, ...], count: int) -> float:
    """Seconds that so many experiments take."""
    settings: dict[str, Any] = {
        "tag": tag, "seed": str(seed), "agent": "command", "max_experiments": count, "lanes": lanes
    }  # fmt: skip
    began = time.monotonic()
    for event in processes.run(settings, home, home.key):
        if event["event"] == "finished":
            row = event["row"]
            text = f"[{time.monotonic() - began:6.1f} s] {tag} {row['id']} {row['status']} on {row['lane']}"
            print(text, file=sys.stderr, flush=True)
        elif event["event"] == "failed" or (event["event"] == "exit" and event["code"]):
            raise SystemExit(f"the session failed: {event}")
    return time.monotonic() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home, lanes = soak.home_of(Path(name)), halves()
        seed = soak.seed(Path(name))
        one = run(home, seed, "one", lanes[:1], asked.experiments)
        two = run(home, seed, "two", lanes, asked.experiments)
        book = Ledger(home.ledger, read_only=True)
        document = {
            "ratio": round(one / two, 2),
            "seconds": {"one": round(one, 1), "two": round(two, 1)},
            "experiments": asked.experiments,
            "scored": sum(row.val_bpb is not None for tag in ("one", "two") for row in book.experiments(tag)),
            "verify_failures": verify.verify(home).failures,
        }
    if not asked.json:
        print(f"one lane {one:.1f} s, two lanes {two:.1f} s")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
