"""Does every verdict of a tag follow from what was before it? In one pass over its rows and reruns. TRUSTED, pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from runner.core.base.values import Experiment, Rerun, Status
from runner.core.decision import decide, early_stop, standing
from runner.core.decision.odds import Replay
from runner.core.policy.policy_files import Decision


def replay(
    rules: Decision,
    rows: Sequence[Experiment],
    reruns: Sequence[Rerun],
    digest: str | None = None,
    *,
    asked: Mapping[int, int] = MappingProxyType({}),
    since: int = 0,
    advance: Callable[[float], None] = lambda _: None,
) -> tuple[list[str], int]:
    """(what does not follow, how many verdicts on a score or a pace were looked at).

    `digest`: only rows decided under these policies; `asked`: keeps that a person took back, and after how many rows;
    `since`: rows before this index are taken as they are.
    """
    wrong, count = [], 0
    line = Replay(rules, rows, reruns) if rules.rule == "odds" else None
    for at, row in enumerate(rows):
        advance(1)
        looked_at = at >= since and digest in (None, row.policy)
        if looked_at:
            if not early_stop.follows(rules.early_stop, rows[:at] if row.hopeless else (), row):
                wrong.append(f"{row.tag} experiment {row.id}: that it could not win does not follow")
            count += row.val_bpb is not None or row.hopeless is not None
        looked_at = looked_at and row.val_bpb is not None
        if looked_at and row.veto is not None:
            follows = _taken_back(rows, at, asked)
        else:
            follows = not looked_at or _told(row) == (line.judge(row) if line else _again(rules, rows, at, reruns))
        total = line.take(row) if line else None
        if not follows:
            wrong.append(f"{row.tag} experiment {row.id}: the verdict does not follow")
        elif looked_at and row.total not in (None, total):
            wrong.append(f"{row.tag} experiment {row.id}: what the tag expected does not follow")
    return wrong, count


def _taken_back(rows: Sequence[Experiment], at: int, asked: Mapping[int, int]) -> bool:
    """Whether a person asked for just this: a keep to be taken back, and the best before it to go on."""
    row = rows[at]
    before = None if row.veto is None else standing.taken_back(rows[:at], row.veto)
    wanted = row.veto is not None and asked.get(row.veto, at + 1) <= at
    return wanted and before is not None and before.snapshot == row.snapshot and _told(row) == decide.TAKEN_BACK


def _told(row: Experiment) -> decide.Verdict:
    """The verdict that a row records."""
    return decide.Verdict(
        row.status, row.reason, row.claimed, row.confirmed, row.interval,
        row.pairs, row.gain, row.probability, row.sigma,
    )  # fmt: skip


def _again(
    rules: Decision, rows: Sequence[Experiment], at: int, reruns: Sequence[Rerun]
) -> decide.Verdict | decide.Wanted:
    row, ended = rows[at], {one.id for one in rows[: at + 1]}
    known = [rerun for rerun in reruns if rerun.during in ended]
    best = standing.best(rows[:at])
    if best is not None:
        known = standing.fitting(rules, best.id, known, row.id, row.neighbours)
    against = standing.standing(rules, rows[:at], known, row.lane)
    if against is None or best is None:
        return decide.Verdict(Status.KEEP)
    return decide.judge(rules, against, standing.runs(row, standing.paired(best.id, known), row.lane))
