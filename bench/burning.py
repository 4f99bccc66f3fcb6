"""Can an agent decide who wins, by what it does while candidates train? Nights of changes without any effect.

    python -m bench.burning [--nights N] [--rule odds] [--experiments N] [--seconds S] [--json]

Each change is a comment, so whatever is kept is noise. Nights by turns: beside a quiet agent, and beside one whose
processes burn every processor and ask the desk for `history` without end. Run nothing else meanwhile: a machine that is
busy with something else changes scores too. The last line is one JSON object: candidates and keeps of either kind.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import soak
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.base.values import Status
from runner.core.evidence import verify
from runner.core.evidence.ledger import Ledger
from runner.people.host import processes

_QUIET = 'i=0; while i=$((i+1)); do printf "# %s\\n" $i >> /work/train.py; bench run "comment $i" || exit 0; done'
_BURN = "for n in 1 2 3 4; do (while :; do :; done) & done; "
_FLOOD = "for n in 1 2 3; do (while :; do bench history >/dev/null 2>&1; done) & done; "
COMMANDS = {"quiet": _QUIET, "burning": _BURN + _FLOOD + _QUIET}


def night(kind: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One tag of its own bench: what was tried and what was kept; raises SystemExit if its session fails."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        home: Home = soak.home_of(Path(name), asked.rule, COMMANDS[kind], asked.seconds)
        seed = str(SOURCE / "trainer" / "train.py")
        settings: dict[str, Any] = {"tag": kind, "seed": seed, "agent": "command", "max_experiments": asked.experiments}
        for event in processes.run(settings, home, home.key):
            if event["event"] == "failed" or (event["event"] == "exit" and event["code"]):
                raise SystemExit(f"the session failed: {event}")
        rows = Ledger(home.ledger, read_only=True).experiments(kind)[1:]
        failures = verify.verify(home).failures
    kept = [row for row in rows if row.status is Status.KEEP]
    gains = [row.gain for row in kept]
    night = {"kind": kind, "candidates": len(rows), "kept": len(kept), "expected": gains, "verify_failures": failures}
    print(f"[{time.monotonic() - began:5.0f} s] {json.dumps(night)}", file=sys.stderr, flush=True)
    return night


def main() -> int:
    """Measure and print; 1 if a record does not verify."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=5, help="of each kind")
    parser.add_argument("--rule", choices=("odds", "paired", "upstream"), default="odds")
    parser.add_argument("--experiments", type=int, default=5, help="of a night, its baseline among them")
    parser.add_argument("--seconds", type=int, default=5, help="of a training")
    parser.add_argument("--json", action="store_true", help="nothing but the JSON object")
    asked = parser.parse_args()
    nights = [night(kind, asked) for _ in range(asked.nights) for kind in COMMANDS]
    document: dict[str, Any] = {"rule": asked.rule, "seconds": asked.seconds}
    for kind in COMMANDS:
        some = [one for one in nights if one["kind"] == kind]
        document[kind] = {part: sum(one[part] for one in some) for part in ("candidates", "kept")}
        if not asked.json:
            print(f"{kind}: {document[kind]['kept']} of {document[kind]['candidates']} changes without effect kept")
    document["verify_failures"] = sum(len(one["verify_failures"]) for one in nights)
    print(json.dumps(document))
    return 1 if document["verify_failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
