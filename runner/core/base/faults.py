"""Places where a process may die, and a way to die there: fault injection for tests. TRUSTED.

`reach` does nothing unless GLOVEBOX_FAULT names the place, as PLACE or PLACE:N for the N-th time it is reached; then
the process kills itself as the kernel would, without a chance to tidy up. Who can set a trusted process's environment
can kill it anyway. tests/faults goes through every place of POINTS, so a new one that is not listed is refused.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

POINTS = {
    "snapshot.kept": "train.py was read and stored, nothing is recorded",
    "ledger.opened": "the row is open, the audit chain does not know",
    "experiment.accepted": "row and chain know, nothing runs",
    "experiment.trained": "the trainer is gone, the evaluator was not asked for",
    "experiment.evaluated": "there is a score nobody wrote down",
    "steer.recorded": "the ledger has what a person asked for, the chain does not",
    "rerun.opened": "a rerun is open, nothing runs",
    "rerun.evaluated": "a rerun's score nobody wrote down",
    "rerun.recorded": "the ledger has the rerun, the chain does not",
    "row.committed": "git has the commit, the ledger's row is open",
    "row.recorded": "the ledger has the row; branch, chain and results.tsv do not",
    "branch.advanced": "the branch moved; chain and results.tsv do not know",
    "row.vouched": "the chain has the row, no checkpoint covers it",
    "chain.sealed": "all but results.tsv",
    "results.written": "all is recorded, train.py was not restored",
    "train_py.restored": "nothing but the answer is missing, and the report is old",
    "launcher.asked": "a request arrived, no container exists",
    "launcher.created": "the container exists, it was not started",
    "launcher.started": "the container runs",
    "launcher.ended": "the container ended and was not removed",
    "broker.reserved": "money is reserved, the call was not made",
    "broker.answered": "the answer came, its cost was not settled",
}
VARIABLE = "GLOVEBOX_FAULT"
_reached: Counter[str] = Counter()


def reach(point: str) -> None:
    """Die here if a test wants it."""
    if point not in POINTS:
        raise ValueError(f"not a fault point: {point}")
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    name, _, number = wanted.partition(":")
    if name == point:
        _reached[point] += 1
        if _reached[point] == int(number or 1):
            os.kill(os.getpid(), signal.SIGKILL)
