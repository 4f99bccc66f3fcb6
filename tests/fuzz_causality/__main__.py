"""Fuzz the causality proof for a while; see the package's description.

Progress goes to stderr, findings and one closing JSON line to stdout. Exit code 1 if a claim did not hold or the
prover raised; each finding's line ends with how to see it again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from tests.fuzz_causality import campaign, generate


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_causality")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--start", type=int, default=1, help="first seed")
    parser.add_argument("--graphs", type=int, help="stop after so many")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="with how often each operation was checked")
    asked = parser.parse_args()
    start = time.monotonic()
    stop = sys.maxsize if asked.graphs is None else asked.start + asked.graphs
    out = campaign.share(range(asked.start, stop), asked.seconds, asked.jobs)
    result: dict[str, object] = {**campaign.closing(out, time.monotonic() - start)}
    if asked.json:
        result["operations"] = {name: out.operations[name] for name in sorted(generate.names())}
        result["refusals"] = dict(out.refusals.most_common(20))
    print(json.dumps(result))
    return 1 if out.counts["unsound"] or out.counts["errors"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
