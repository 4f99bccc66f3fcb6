"""`glovebox verify`: does the recorded evidence add up? TRUSTED, offline, reads only.

Checked: the audit chain; ledger rows against the chain's `finished` entries; every snapshot and commit
against its hash; every verdict against the rows and reruns before it; the kept line against the keeps;
results.tsv against the ledger; the artifact's manifest.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runner.core.artifacts import begun, keys, manifest, store
from runner.core.base.errors import GloveboxError
from runner.core.base.files import hash_file
from runner.core.base.home import Home
from runner.core.base.values import INTERRUPTED, Experiment, Rerun, Status
from runner.core.decision import decide, early_stop, standing
from runner.core.decision.odds import Candidate, Line
from runner.core.evidence import audit_chain, checkpoints, results_tsv
from runner.core.evidence.git_line import FILE, GitLine
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.receipts import complete, probed, row_digest
from runner.core.policy import of_tag, policy_files

NO_WITNESS = (
    "no witness: an end cut off the audit chain together with the ledger's rows, or an older copy of the whole bench, "
    "would not be noticed (set witness in policies/audit.yaml, then: glovebox verify --witness FILE)"
)


@dataclass
class Outcome:
    """What `glovebox verify --json` prints."""

    checked: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def check(self, what: str, holds: bool, failure: str) -> None:
        """Count one check; remember its failure."""
        self.checked[what] = self.checked.get(what, 0) + 1
        if not holds:
            self.failures.append(failure)

    def document(self) -> dict[str, Any]:
        return {
            "ok": not self.failures,
            "checked": self.checked,
            "not_verified": self.unknown,
            "failures": self.failures,
        }


def verify(home: Home, witness: Path | None = None) -> Outcome:
    """Run every check on a bench; `witness` is the file policies/audit.yaml names, or a copy of it."""
    outcome = Outcome()
    entries: list[dict[str, Any]] = []
    try:
        entries = audit_chain.verify(home.audit)
        outcome.check("audit entries", True, "")
        outcome.checked["audit entries"] = len(entries)
    except GloveboxError as error:
        outcome.check("audit entries", False, str(error))
    _sealed(outcome, home, entries, witness)
    _calls(outcome, home)
    finished, accepted, repeated = (
        audit_chain.finished(entries),
        audit_chain.accepted(entries),
        audit_chain.reruns(entries),
    )
    _once(outcome, entries, len(finished))
    ledger = Ledger(home.ledger, read_only=True)
    line = GitLine(home.line)
    outcome.check("git objects", line.sound(), "git fsck finds objects that are not what their names say")
    rules = _rules(home, outcome)
    every = list(of_tag.known(home.policies)) if rules is not None else []
    seen: set[tuple[str, int]] = set()
    for tag in ledger.tags():
        rows = ledger.experiments(tag)
        seen.update((row.tag, row.id) for row in rows)
        for row in rows:
            key = (row.tag, row.id)
            _row(outcome, home, line, row, finished.get(key))
            _ran(outcome, row, finished.get(key), accepted.get(key))
        reruns = ledger.reruns(tag)
        for rerun in reruns:
            _rerun(outcome, home, rerun, repeated.pop((rerun.tag, rerun.id), None))
        if rules is not None:
            terms = ledger.run_info(tag)["policy"]
            known = begun.under(home, terms, every)
            _decided(outcome, known or rules, rows, reruns, same_terms=known is not None)
        _line(outcome, line, tag, rows)
        _results(outcome, home, tag, rows)
    for tag, number in sorted(set(finished) - seen):
        outcome.check("ledger rows", False, f"{tag} experiment {number} is in the audit chain but not in the ledger")
    for tag, number in sorted(repeated):
        outcome.check("reruns", False, f"{tag} rerun {number} is in the audit chain but not in the ledger")
    _unvouched(outcome, list(finished.values()))
    _artifacts(outcome, home)
    return outcome


def _sealed(outcome: Outcome, home: Home, entries: list[dict[str, Any]], witness: Path | None) -> None:
    public = keys.trust(home).audit
    good, unsealed, wrong = checkpoints.check(entries, public)
    outcome.checked["checkpoints"] = good + len(wrong)
    outcome.failures += wrong
    if unsealed:
        outcome.unknown.append(f"{unsealed} experiments after the last checkpoint carry no signature yet")
    if witness is None:
        outcome.unknown.append(NO_WITNESS)
        return
    seen, lost = checkpoints.against_witness(home, entries, public, witness)
    outcome.checked["witnessed checkpoints"] = seen
    outcome.failures += lost


def _calls(outcome: Outcome, home: Home) -> None:
    """The broker's own chain; it is the broker's word, unsigned."""
    path = home.broker / "calls.jsonl"
    if path.exists():
        try:
            outcome.checked["model calls"] = len(audit_chain.verify(path))
        except GloveboxError as error:
            outcome.check("model calls", False, str(error))
        outcome.unknown.append("the log of model calls is a hash chain without signatures")


def _row(outcome: Outcome, home: Home, line: GitLine, row: Experiment, entry: dict[str, Any] | None) -> None:
    name = f"{row.tag} experiment {row.id}"
    same = entry is not None and entry.get("row") == row_digest(row)
    outcome.check("ledger rows", same, f"{name}: the ledger row differs from the audit chain")
    outcome.check("snapshots", _sha256_of(home, row) == row.snapshot, f"{name}: the snapshot is missing or altered")
    try:
        committed = hashlib.sha256(line.content(row.commit)).hexdigest()
    except GloveboxError:
        committed = ""
    outcome.check("commits", committed == row.snapshot, f"{name}: commit {row.commit[:7]} is not its snapshot")


def _once(outcome: Outcome, entries: list[dict[str, Any]], distinct: int) -> None:
    """An experiment ends once: a second entry would replace the first."""
    every = sum(entry.get("kind") == "finished" for entry in entries)
    outcome.check(
        "ledger rows", every == distinct, "the audit chain finishes an experiment twice, or one without a name"
    )


def _ran(outcome: Outcome, row: Experiment, entry: dict[str, Any] | None, begun: dict[str, Any] | None) -> None:
    """A row that was scored began as one, and its containers are vouched for, unless a crash took the word away."""
    name = f"{row.tag} experiment {row.id}"
    if row.reason != INTERRUPTED:
        same = begun is not None and (begun.get("snapshot"), begun.get("run")) == (row.snapshot, row.run)
        outcome.check("receipts", same, f"{name}: the audit chain does not know that it began")
    if entry is not None and "containers" in entry and not entry.get("recovered"):
        outcome.check("receipts", complete(entry), f"{name}: scored without containers that were compared with policy")


def _rerun(outcome: Outcome, home: Home, rerun: Rerun, entry: dict[str, Any] | None) -> None:
    name = f"{rerun.tag} rerun {rerun.id}"
    same = entry is not None and _as_rerun(entry) == rerun
    outcome.check("reruns", same, f"{name}: the ledger differs from the audit chain")
    if entry is not None and not entry.get("recovered"):
        outcome.check("reruns", complete(entry), f"{name}: scored without containers that were compared with policy")
    outcome.check("snapshots", _sha256_of(home, rerun) == rerun.snapshot, f"{name}: the snapshot is missing or altered")


def _as_rerun(entry: dict[str, Any]) -> Rerun | None:
    """What the chain says of a rerun; fields that came later have their defaults."""
    try:
        return Rerun.model_validate_json(json.dumps(entry.get("rerun")))
    except ValidationError:
        return None


def _rules(home: Home, outcome: Outcome) -> policy_files.Policies | None:
    """The policies in force; without them verdicts cannot be replayed."""
    try:
        return policy_files.load(*home.policies)
    except GloveboxError as error:
        outcome.unknown.append(f"no verdict was replayed: {error}")
        return None


def _decided(
    outcome: Outcome, rules: policy_files.Policies, rows: list[Experiment], reruns: list[Rerun], *, same_terms: bool
) -> None:
    digest = None if same_terms else rules.digest  # policies that bear on no score may have changed since
    later = [row for row in rows if row.val_bpb is not None][1:]
    if not same_terms and (rules.decision.rule == "odds") is not any(row.probability is not None for row in later):
        outcome.unknown.append(f"{len(later)} verdicts were made under another rule than that in force: not replayed")
        return
    others = sum(row.val_bpb is not None and digest not in (None, row.policy) for row in rows)
    wrong, replayed = replay(rules.decision, rows, reruns, digest)
    outcome.checked["verdicts"] = outcome.checked.get("verdicts", 0) + replayed
    outcome.failures += wrong
    if others:
        outcome.unknown.append(f"{others} verdicts were made under other policies than those in force: not replayed")


def replay(
    rules: policy_files.Decision, rows: list[Experiment], reruns: list[Rerun], digest: str | None = None
) -> tuple[list[str], int]:
    """Each verdict on a score or a pace follows from what was before it: (what does not, how many were looked at).

    `digest`: only rows decided under these policies.
    """
    wrong, count = [], 0
    line = Line(rules)
    for at, row in enumerate(rows):
        if digest not in (None, row.policy):
            continue
        if not early_stop.follows(rules.early_stop, rows[:at], row):
            wrong.append(f"{row.tag} experiment {row.id}: that it could not win does not follow")
        count += row.val_bpb is not None or row.hopeless is not None
        if row.val_bpb is None:
            continue
        expected = _by_odds(line, rows[:at], row, reruns) if rules.rule == "odds" else _again(rules, rows, at, reruns)
        told = decide.Verdict(
            row.status,
            row.reason,
            row.claimed,
            row.confirmed,
            row.interval,
            row.pairs,
            row.gain,
            row.probability,
            row.sigma,
        )
        if told != expected:
            wrong.append(f"{row.tag} experiment {row.id}: the verdict does not follow")
    return wrong, count


def _again(
    rules: policy_files.Decision, rows: list[Experiment], at: int, reruns: list[Rerun]
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
    line: Line, before: list[Experiment], row: Experiment, reruns: list[Rerun]
) -> decide.Verdict | decide.Wanted:
    """In one pass over the tag: what was seen before this row, and the runs that were its own or the baseline's."""
    line.catch_up(before, reruns)
    known = [rerun for rerun in reruns if 0 < rerun.during <= row.id]
    own = standing.runs(row, [rerun for rerun in known if rerun.during == row.id], row.lane)
    return line.judge(Candidate(row.id, row.parent, row.lane, own), known)


def _unvouched(outcome: Outcome, finished: list[dict[str, Any]]) -> None:
    """What the entries themselves leave open."""
    recovered = sum(bool(entry.get("recovered")) for entry in finished)
    if recovered:
        outcome.unknown.append(
            f"{recovered} experiments were entered from the ledger after a crash: nobody saw them run"
        )
    bare = sum(bool(entry.get("containers")) and not probed(entry) for entry in finished)
    if bare:
        outcome.unknown.append(f"{bare} experiments ran without a red team whose probes all held (glovebox redteam)")


def _sha256_of(home: Home, row: Experiment | Rerun) -> str:
    try:
        return hash_file(home.snapshots / f"{row.snapshot}.py")[0]
    except OSError:
        return ""


def _line(outcome: Outcome, line: GitLine, tag: str, rows: list[Experiment]) -> None:
    keeps = [row for row in rows if row.status is Status.KEEP]
    _history(outcome, line, tag, keeps)
    head = line.head(tag)
    outcome.check(
        "kept lines", head == (keeps[-1].commit if keeps else None), f"{tag}: the branch is not at its last keep"
    )
    better = all(b.val_bpb is not None and a.val_bpb is not None for a, b in itertools.pairwise(keeps))
    outcome.check("kept lines", better, f"{tag}: a kept row has no score")
    audited = all(row.evaluation is None or not row.evaluation.audited or row.evaluation.whole for row in keeps)
    outcome.check("kept lines", audited, f"{tag}: a kept row was not audited on every row")


def _history(outcome: Outcome, line: GitLine, tag: str, keeps: list[Experiment]) -> None:
    """Each keep's commit follows the one before it, and holds train.py alone."""
    before: str | None = None
    for row in keeps:
        try:
            follows = line.parent(row.commit) == before and line.names(row.commit) == [FILE]
        except GloveboxError:
            follows = False
        outcome.check(
            "kept lines", follows, f"{tag} experiment {row.id}: its commit does not follow the keep before it"
        )
        before = row.commit


def _results(outcome: Outcome, home: Home, tag: str, rows: list[Experiment]) -> None:
    path = home.tag(tag) / "results.tsv"
    expected = ["\t".join(results_tsv.COLUMNS), *(results_tsv.line(row) for row in rows)]
    found = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    outcome.check("results.tsv", found == expected or not rows, f"{tag}: results.tsv differs from the ledger")


def _artifacts(outcome: Outcome, home: Home) -> None:
    trust = keys.trust(home)
    for folder in sorted(p for p in home.store.glob("[a-z0-9]*") if p.is_dir()):
        try:
            statement = manifest.read(folder, trust)
            store.same_files(folder, statement)
            bad = [s.name for s in statement.subject if hash_file(folder / s.name)[0] != s.digest.sha256]
            outcome.check("artifacts", not bad, f"artifact {folder.name}: altered {', '.join(bad)}")
        except (GloveboxError, OSError) as error:
            outcome.check("artifacts", False, f"artifact {folder.name}: {error}")
