"""`bench`: the runner's desk as a command, for agents that work through a shell. UNTRUSTED.

Prints one JSON document. Exit codes: 0 done, 1 refused (the reason is printed), 2 wrong usage, 3 no runner.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from agent.client import Bench, Interrupted, Refused


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="bench", description="Run experiments with train.py as it is now.")
    verbs = top.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="train and score /work/train.py; prints its feedback")
    run.add_argument("description", help="one line for the record: what changed, and why")
    verbs.add_parser("history", help="all experiments so far, and what is left of the budget")
    telemetry = verbs.add_parser("telemetry", help="loss curve and summary of one experiment")
    telemetry.add_argument("experiment", type=int)
    verbs.add_parser("restore", help="put the best version so far back into train.py")
    return top


def main(argv: list[str] | None = None) -> int:
    """Carry out one verb."""
    asked, bench = parser().parse_args(argv), Bench(patience=30)
    verbs: dict[str, Callable[[], object]] = {
        "run": lambda: bench.run_experiment(asked.description),
        "history": bench.history,
        "telemetry": lambda: bench.telemetry(asked.experiment),
        "restore": bench.restore,
    }
    try:
        print(json.dumps(verbs[asked.verb]()))
    except Refused as error:
        print(json.dumps({"ok": False, "reason": str(error)}))
        return 1
    except (Interrupted, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
