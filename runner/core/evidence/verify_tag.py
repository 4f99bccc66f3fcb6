"""What `glovebox verify` looks at of one tag: rows, reruns, verdicts, kept line, results.tsv. TRUSTED, reads only."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runner.core.airlock import leak_budget
from runner.core.artifacts import begun
from runner.core.artifacts.progress import Advance, Stages
from runner.core.base import locks
from runner.core.base.errors import GloveboxError
from runner.core.base.files import open_plain
from runner.core.base.home import Home
from runner.core.base.values import INTERRUPTED, Experiment, Rerun, Status
from runner.core.evidence import results_tsv
from runner.core.evidence.chain_index import ChainIndex
from runner.core.evidence.git_line import FILE, MAX_FILE, GitLine
from runner.core.evidence.git_objects import Objects
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.outcome import Outcome
from runner.core.evidence.receipts import complete, probed, row_digest
from runner.core.evidence.replay import replay
from runner.core.policy.policy_files import Policies

_MEANWHILE = 1 << 20  # bytes of results.tsv that a session may add while we look
_PATIENCE = 30.0  # seconds that what a session has half recorded is waited for, in all: disks and witnesses are slow
_LOOKS = 0.05  # seconds between two looks for what a session records just now
_Entry = dict[str, Any]


@dataclass
class Records:
    """The records of a bench, tag by tag."""

    home: Home
    shown: Stages
    outcome: Outcome
    ledger: Ledger
    line: GitLine
    objects: Objects | None  # None: git's objects are not what their names say
    chain: ChainIndex
    used: dict[str, str] = field(default_factory=dict)  # artifacts, and when the last run began that used them
    hashed: dict[str, str] = field(default_factory=dict)  # snapshots by their name
    recovered: int = 0  # experiments nobody saw run
    bare: int = 0  # that ran without a red team
    expected: dict[str, tuple[str | None, bytes]] = field(default_factory=dict)  # by tag: last keep, results.tsv
    patience: float = field(default_factory=lambda: _PATIENCE)  # that is left
    _at_work: bool = False

    def at_work(self) -> bool:
        """Whether a session records, or has since we began."""
        self._at_work = self._at_work or locks.held(self.home.runner_lock)
        return self._at_work

    def wait(self, there: Callable[[], bool]) -> None:
        """Until the chain has what a session records just now: the ledger is written before it."""
        began = time.monotonic()
        while not there() and self.at_work() and time.monotonic() - began < self.patience:
            time.sleep(_LOOKS)
            self.chain.catch_up(growing=True)
        self.patience -= time.monotonic() - began

    def look(self, tag: str, rules: Policies | None, every: list[Policies]) -> None:
        """Check one tag; `rules`: the policies in force, None if they are no policies; `every`: those it may be of."""
        ledger, chain = self.ledger, self.chain
        rows, reruns = ledger.experiments(tag), ledger.reruns(tag)
        runs: list[Experiment | Rerun] = [*rows, *reruns]
        for run in runs:
            self.used[run.artifact] = max(self.used.get(run.artifact, ""), run.started)
        since = next((at for at, row in enumerate(rows) if (tag, row.id) not in chain.old), len(rows))
        self.wait(lambda: all((tag, row.id) in chain.finished for row in rows))
        self.wait(lambda: all((tag, rerun.id) in chain.reruns for rerun in reruns))
        with self.shown.stage(f"{tag}: rows", len(rows)) as advance:
            for row in rows:
                entry = chain.finished.pop((tag, row.id), None)  # once: a second row of that number has none
                self._vouched(row, entry)
                if entry is None or (tag, row.id) not in chain.old:
                    self._row(row)
                    self._ran(row, entry, chain.accepted.get((tag, row.id)))
                advance(1)
        for rerun in reruns:
            found = chain.reruns.pop((tag, rerun.id), None)
            self._rerun(rerun, found, old=found is not None and (tag, rerun.id) in chain.old_reruns)
        if rules is not None:
            known = begun.under(self.home, ledger.run_info(tag)["policy"], every)
            with self.shown.stage(f"{tag}: verdicts", len(rows)) as advance:
                self._decided(known or rules, rows, reruns, same_terms=known is not None, since=since, advance=advance)
            self._told(known, tag, rows)
        self._origin(tag, rows)
        self._kept(tag, rows)
        self.expected[tag] = _last_keep(rows), _results(rows)

    def _origin(self, tag: str, rows: Sequence[Experiment]) -> None:
        """A tag that was begun with another's best begins with just that file."""
        ledger, origin = self.ledger, self.ledger.origin(tag)
        if origin is None or not rows:
            return
        first = min(rows, key=lambda row: row.id)
        other = [] if origin.begun_from == tag else ledger.experiments(origin.begun_from)
        keeps = [row for row in other if row.status is Status.KEEP]
        same = any((row.id, row.snapshot) == (origin.experiment, first.snapshot) for row in keeps)
        told = f"{tag}: it does not begin with experiment {origin.experiment} of {origin.begun_from}"
        self.outcome.check("origins", same, told)

    def _vouched(self, row: Experiment, entry: _Entry | None) -> None:
        same = entry is not None and entry.get("row") == row_digest(row)
        told = f"{row.tag} experiment {row.id}: the ledger row differs from the audit chain"
        self.outcome.check("ledger rows", same, told)

    def _row(self, row: Experiment) -> None:
        name = f"{row.tag} experiment {row.id}"
        self._snapshot(name, row)
        if self.objects is None:
            return
        try:
            committed = hashlib.sha256(self.objects.read(f"{row.commit}:{FILE}", "blob")).hexdigest()
        except GloveboxError:
            committed = ""
        told = f"{name}: commit {row.commit[:7]} is not its snapshot"
        self.outcome.check("commits", committed == row.snapshot, told)

    def _ran(self, row: Experiment, entry: _Entry | None, accepted: _Entry | None) -> None:
        """A row that was scored began as one, and its containers are vouched for, unless a crash took the word away."""
        check, name = self.outcome.check, f"{row.tag} experiment {row.id}"
        if row.reason != INTERRUPTED:
            same = accepted is not None and (accepted.get("snapshot"), accepted.get("run")) == (row.snapshot, row.run)
            check("receipts", same, f"{name}: the audit chain does not know that it began")
        self.recovered += bool(entry and entry.get("recovered"))
        self.bare += bool(entry and entry.get("containers") and not probed(entry))
        if entry is not None and "containers" in entry and not entry.get("recovered"):
            check("receipts", complete(entry), f"{name}: scored without containers that were compared with policy")

    def _rerun(self, rerun: Rerun, entry: _Entry | None, *, old: bool) -> None:
        check, name = self.outcome.check, f"{rerun.tag} rerun {rerun.id}"
        same = entry is not None and _as_rerun(entry) == rerun
        check("reruns", same, f"{name}: the ledger differs from the audit chain")
        if old:
            return
        if entry is not None and not entry.get("recovered"):
            check("reruns", complete(entry), f"{name}: scored without containers that were compared with policy")
        self._snapshot(name, rerun)

    def _snapshot(self, name: str, run: Experiment | Rerun) -> None:
        if run.snapshot not in self.hashed:
            data = _read(self.home.source(run.snapshot), MAX_FILE)
            self.hashed[run.snapshot] = "" if data is None else hashlib.sha256(data).hexdigest()
        same = self.hashed[run.snapshot] == run.snapshot
        self.outcome.check("snapshots", same, f"{name}: the snapshot is missing or altered")

    def _decided(
        self,
        rules: Policies,
        rows: Sequence[Experiment],
        reruns: Sequence[Rerun],
        *,
        same_terms: bool,
        since: int,
        advance: Advance,
    ) -> None:
        outcome = self.outcome
        digest = None if same_terms else rules.digest  # policies that bear on no score may have changed since
        later = [row for row in rows if row.val_bpb is not None][1:]
        if not same_terms and (rules.decision.rule == "odds") is not any(row.probability is not None for row in later):
            told = f"{len(later)} verdicts were made under another rule than that in force: not replayed"
            outcome.unknown.append(told)
            return
        others = sum(row.val_bpb is not None and digest not in (None, row.policy) for row in rows[since:])
        try:
            wrong, replayed = replay(rules.decision, rows, reruns, digest, since=since, advance=advance)
        except (ArithmeticError, ValueError) as error:  # of scores that no evaluator gives
            wrong, replayed = [f"{rows[0].tag}: its verdicts cannot be replayed: {error}"], 0
        outcome.checked["verdicts"] = outcome.checked.get("verdicts", 0) + replayed
        outcome.failures += wrong
        if others:
            told = f"{others} verdicts were made under other policies than those in force: not replayed"
            outcome.unknown.append(told)

    def _told(self, rules: Policies | None, tag: str, rows: Sequence[Experiment]) -> None:
        """Whether answers told no more than the tag's own policies allow."""
        if rules is None:
            self.outcome.unknown.append(f"{tag}: the policies it was begun under are not here: bits told not counted")
        else:
            told = leak_budget.told(rules, rows)
            within = len(told.rows) == len(rows) or all(row.told is None for row in rows[len(told.rows) :])
            self.outcome.check("leak budgets", within, f"{tag}: answers told more bits than the tag was given")

    def _kept(self, tag: str, rows: Sequence[Experiment]) -> None:
        check, keeps = self.outcome.check, [row for row in rows if row.status is Status.KEEP]
        if self.objects is not None:
            self._follow(self.objects, tag, keeps)
        scored = all(row.val_bpb is not None for row in keeps)
        check("kept lines", scored, f"{tag}: a kept row has no score")
        audited = all(row.evaluation is None or not row.evaluation.audited or row.evaluation.whole for row in keeps)
        check("kept lines", audited, f"{tag}: a kept row was not audited on every row")

    def _follow(self, objects: Objects, tag: str, keeps: Sequence[Experiment]) -> None:
        """Each keep's commit follows the one before it, and holds train.py alone."""
        before: list[str] = []
        for row in keeps:
            try:
                follows = objects.commit(row.commit) == (before, [FILE])
            except GloveboxError:
                follows = False
            told = f"{tag} experiment {row.id}: its commit does not follow the keep before it"
            self.outcome.check("kept lines", follows, told)
            before = [row.commit]

    def ahead(self) -> None:
        """Branches, results.tsv and what the chain has beyond the ledger: only beside a session, and only as far as the
        chain says that it came after the ledger's moment, may that be. A held lock alone hides nothing."""
        chain, found = self.chain, dict[str, tuple[str | None, bytes | None]]()

        def fits(tag: str) -> bool:
            return tag in found and self._branch_fits(tag, found[tag][0]) and self._table_fits(tag, found[tag][1])

        def settled() -> bool:
            found.update({tag: (self.line.head(tag), self._table(tag)) for tag in self.expected if not fits(tag)})
            return all(map(fits, self.expected))

        self.wait(settled)
        chain.catch_up(growing=self.at_work())
        for tag, (head, table) in found.items():
            self.outcome.check("kept lines", self._branch_fits(tag, head), f"{tag}: the branch is not at its last keep")
            told = f"{tag}: results.tsv differs from the ledger"
            self.outcome.check("results.tsv", self._table_fits(tag, table), told)
        late = 0
        for (tag, number), kind, what, after in self._lost():
            late += after
            if not after:
                told = f"{tag} {kind} {number} is in the audit chain but not in the ledger"
                self.outcome.check(what, False, told)
        if self.at_work():
            told = f"a session is at work: {late} runs that ended meanwhile and the end of results.tsv"
            self.outcome.unknown.append(f"{told} were not looked at")

    def _lost(self) -> list[tuple[tuple[str, int], str, str, bool]]:
        """What the chain has and the ledger does not, and whether a session may have recorded it since."""
        chain, at_work = self.chain, self.at_work()
        lost = [(key, "experiment", "ledger rows", at_work and key in chain.late) for key in sorted(chain.finished)]
        return lost + [(key, "rerun", "reruns", at_work and key in chain.late_reruns) for key in sorted(chain.reruns)]

    def _branch_fits(self, tag: str, head: str | None) -> bool:
        return head == self.expected[tag][0] or (self.at_work() and head in self.chain.late_keeps(tag))

    def _table(self, tag: str) -> bytes | None:
        return _read(self.home.tag(tag) / "results.tsv", len(self.expected[tag][1]) + _MEANWHILE)

    def _table_fits(self, tag: str, found: bytes | None) -> bool:
        expected = self.expected[tag][1]
        if not expected or found == expected:
            return True
        late = sum(of == tag for of, _ in self.chain.late) if self.at_work() else 0
        return found is not None and found.startswith(expected) and found[len(expected) :].count(b"\n") <= late > 0


def _last_keep(rows: Sequence[Experiment]) -> str | None:
    return next((row.commit for row in reversed(rows) if row.status is Status.KEEP), None)


def _results(rows: Sequence[Experiment]) -> bytes:
    """What results.tsv must be; empty for a tag without rows, of which there need be none."""
    lines = ["\t".join(results_tsv.COLUMNS), *(results_tsv.line(row) for row in rows)]
    return "".join(f"{line}\n" for line in lines).encode() if rows else b""


def _read(path: Path, most: int) -> bytes | None:
    """A plain file of at most so many bytes; None for anything else."""
    try:
        with open_plain(path) as file:
            data = file.read(most + 1)
    except OSError:
        return None
    return data if len(data) <= most else None


def _as_rerun(entry: _Entry) -> Rerun | None:
    """What the chain says of a rerun; fields that came later have their defaults."""
    try:
        return Rerun.model_validate_json(json.dumps(entry.get("rerun")))
    except ValidationError:
        return None
