"""Does every verdict of a tag follow from what was before it? In one pass over its rows and reruns. TRUSTED, pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from runner.core.base.values import Experiment, Rerun, Status
from runner.core.decision import decide, early_stop, standing
from runner.core.decision.odds import Candidate, Line
from runner.core.policy.policy_files import Decision


def replay(
    rules: Decision,
    rows: Sequence[Experiment],
    reruns: Sequence[Rerun],
    digest: str | None = None,
    *,
    since: int = 0,
    advance: Callable[[float], None] = lambda _: None,
) -> tuple[list[str], int]:
    """(what does not follow, how many verdicts on a score or a pace were looked at).

    `digest`: only rows decided under these policies; `since`: rows before this index are taken as they are.
    """
    wrong, count = [], 0
    decided = _by_odds(rules, rows, reruns, since) if rules.rule == "odds" else None
    for at, row in enumerate(rows):
        advance(1)
        expected = next(decided) if decided else None
        if at < since or digest not in (None, row.policy):
            continue
        if not early_stop.follows(rules.early_stop, rows[:at] if row.hopeless else (), row):
            wrong.append(f"{row.tag} experiment {row.id}: that it could not win does not follow")
        count += row.val_bpb is not None or row.hopeless is not None
        if row.val_bpb is None:
            continue
        verdict, total = expected or (_again(rules, rows, at, reruns), None)
        told = decide.Verdict(
            row.status, row.reason, row.claimed, row.confirmed, row.interval,
            row.pairs, row.gain, row.probability, row.sigma,
        )  # fmt: skip
        if told != verdict:
            wrong.append(f"{row.tag} experiment {row.id}: the verdict does not follow")
        elif row.total not in (None, total):
            wrong.append(f"{row.tag} experiment {row.id}: what the tag expected does not follow")
    return wrong, count


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


def _by_odds(
    rules: Decision, rows: Sequence[Experiment], reruns: Sequence[Rerun], since: int
) -> Iterator[tuple[decide.Verdict | decide.Wanted, float | None]]:
    """For each row the verdict on it, by what was seen before and the runs that were its own or the baseline's; and
    what the tag expected afterwards."""
    line, during = Line(rules), dict[int, list[Rerun]]()
    for rerun in reruns:
        during.setdefault(rerun.during, []).append(rerun)
    first = standing.baseline(rows)
    scale = [rerun for rerun in reruns if first is not None and rerun.experiment == first.id and rerun.during]
    for at, row in enumerate(rows):
        own = during.get(row.id, [])
        known = own + [rerun for rerun in scale if rerun.during < row.id]
        verdict: decide.Verdict | decide.Wanted = decide.Verdict(Status.KEEP)
        if at >= since and row.val_bpb is not None:
            candidate = Candidate(row.id, row.parent, row.lane, standing.runs(row, own, row.lane))
            verdict = line.judge(candidate, known)
        line.take(row, known)
        yield verdict, line.total()
