"""Run the campaign on every processor. Ends with one JSON line; exit code 1 if an operation differs or is missed."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from typing import Any

from tests.fuzz_ops.campaign import Tally
from tests.fuzz_ops.workers import Death, results
from trainer.evaluator.model import ops


def main() -> int:
    """Compare until enough calls were run both ways; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_ops")
    parser.add_argument("--calls", type=int, default=100_000, help="calls to run both ways")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--op", choices=sorted(ops.allowed()), metavar="NAME", help="only this operation")
    parser.add_argument("--json", action="store_true", help="nothing but the JSON line")
    asked = parser.parse_args()
    names = [asked.op] if asked.op else sorted(ops.allowed())
    summary = campaign(names, asked.calls, asked.start, asked.jobs, quiet=asked.json)
    if not asked.json:
        for found in summary["mismatches"]:
            print("{op} {kind}: real {real}, fake {fake}, of ({args}), seed {seed}".format(**found))
    print(json.dumps(summary))
    return 1 if summary["mismatches"] or summary["never"] or summary["deaths"] else 0


def campaign(names: list[str], wanted: int, start: int, jobs: int, quiet: bool) -> dict[str, Any]:
    """The summary of at least `wanted` calls, or of those made until an interrupt."""
    tally, deaths, began = Tally(), list[Death](), time.monotonic()
    with suppress(KeyboardInterrupt), closing(results(names, start, jobs)) as chunks:
        for result in chunks:
            if isinstance(result, Death):
                deaths.append(result)
            else:
                tally.merge(result)
            if not quiet:
                said = f"{tally.calls} calls, {len(tally.mismatches)} mismatches, {len(deaths)} deaths"
                print(said, file=sys.stderr, flush=True)
            if tally.calls >= wanted:
                break
    return summary(tally, deaths, names, time.monotonic() - began)


def summary(tally: Tally, deaths: list[Death], names: list[str], seconds: float) -> dict[str, Any]:
    """Sums, and per operation where fake and real disagree about an error."""
    compared = tally.counts.get("compared", Counter[str]())
    sums = ("compared", "both_raise", "forbidden", "unparsed", "refused", "large", "mismatched")
    return {
        "calls": tally.calls,
        **{what: tally.total(what) for what in sums},
        "operations": len(compared),
        "never": [name for name in names if name not in compared],
        "mismatches": [tally.mismatches[key] for key in sorted(tally.mismatches)],
        "deaths": [{"op": names[d.seed % len(names)], "seed": d.seed, "signal": d.signal} for d in deaths],
        **{what: dict(sorted(tally.counts.get(what, {}).items())) for what in ("fake_raises", "real_raises")},
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    raise SystemExit(main())
