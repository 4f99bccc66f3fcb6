"""What `glovebox verify` looks at of one tag: its start, rows, reruns and verdicts. TRUSTED, reads only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from runner.core.airlock import leak_budget
from runner.core.artifacts import begun
from runner.core.artifacts.progress import Advance, Stages
from runner.core.base import steering
from runner.core.base.errors import GloveboxError
from runner.core.base.home import Home
from runner.core.base.steering import Steer
from runner.core.base.values import INTERRUPTED, Experiment, Rerun, Status
from runner.core.evidence.beside import Beside
from runner.core.evidence.chain_index import ChainIndex
from runner.core.evidence.git_line import FILE, MAX_FILE
from runner.core.evidence.git_objects import Objects
from runner.core.evidence.ledger import Ledger, Opened, interrupted, start, text_digest
from runner.core.evidence.outcome import Outcome
from runner.core.evidence.receipts import complete, probed, vouches
from runner.core.evidence.replay import replay
from runner.core.evidence.texts import Texts
from runner.core.evidence.verify_line import KeptLines, read
from runner.core.policy.policy_files import Policies

_Entry = dict[str, Any]


@dataclass
class Records:
    """The records of a bench, tag by tag."""

    home: Home
    shown: Stages
    outcome: Outcome
    ledger: Ledger
    lines: KeptLines
    objects: Objects | None  # None: git's objects are not what their names say
    chain: ChainIndex
    beside: Beside
    read: dict[str, bool] = field(default_factory=dict)  # texts that were looked at, and whether they are sound
    used: dict[str, str] = field(default_factory=dict)  # artifacts, and when the last run began that used them
    hashed: dict[str, str] = field(default_factory=dict)  # snapshots by their name
    known: set[tuple[str, int]] = field(default_factory=set)  # experiments the ledger has, ended or not
    recovered: int = 0  # experiments nobody saw run
    bare: int = 0  # that ran without a red team
    reruns_recovered: int = 0  # that nobody saw run, but for those a crash ended
    unheard: int = 0  # that the chain does not know to have begun
    unsaid: int = 0  # tags of whose start the chain says nothing

    @cached_property
    def texts(self) -> Texts:
        """Beside the rows."""
        return Texts(self.ledger)

    def look(self, tag: str, rules: Policies | None, every: list[Policies]) -> None:
        """Check one tag; `rules`: the policies in force, None if they are no policies; `every`: those it may be of."""
        ledger, chain = self.ledger, self.chain
        rows, reruns = ledger.experiments(tag), ledger.reruns(tag)
        runs: list[Experiment | Rerun] = [*rows, *reruns]
        for run in runs:
            self.used[run.artifact] = max(self.used.get(run.artifact, ""), run.started)
        self.known |= {(tag, row.id) for row in rows}
        since = next((at for at, row in enumerate(rows) if (tag, row.id) not in chain.old), len(rows))
        self._wait(lambda: all((tag, row.id) in chain.finished for row in rows))
        self._wait(lambda: all((tag, rerun.id) in chain.reruns for rerun in reruns))
        self._began(tag, rows)
        self._order(tag, rows)
        steers = self._steers(tag)
        self._texts(tag, rows)
        for name in ledger.odd(tag):
            self.outcome.check("ledger rows", False, f"{tag} {name}: it was begun as something else, the ledger says")
        digests = ledger.digests(tag)
        with self.shown.stage(f"{tag}: rows", len(rows)) as advance:
            for row in rows:
                entry = chain.finished.pop((tag, row.id), None)  # once: a second row of that number has none
                self._vouched(row, entry, digests[row.id])
                self.recovered += bool(entry and entry.get("recovered"))
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
                asked, same = steering.vetoes(steers), known is not None
                self._decided(known or rules, rows, reruns, asked, same_terms=same, since=since, advance=advance)
            self._told(known, tag, rows)
        self._origin(tag, rows)
        self.lines.look(tag, rows, self.objects)

    def _wait(self, there: Callable[[], bool]) -> None:
        """Until the chain has what a session records just now: the ledger is written before it."""
        self.beside.wait(there, lambda: self.chain.catch_up(growing=True))

    def _began(self, tag: str, rows: Sequence[Experiment]) -> None:
        """What the ledger says of a tag's start, and of experiments that have not ended, the chain says too."""
        chain, check = self.chain, self.outcome.check
        running = [self.ledger.opened(tag, number) for number in self.ledger.open_numbers(tag)]
        for one in running:
            self.known.add((tag, one.id))
            entry = chain.accepted.get((tag, one.id))
            self.unheard += entry is None
            same = entry is None or _started(entry, one)
            check("receipts", same, f"{tag} experiment {one.id}: the audit chain knows another start of it")
        if tag in chain.begun and (rows or running):
            same = chain.begun[tag] == start(self.ledger, tag)
            check("tags", same, f"{tag}: the audit chain knows another start of it")
        self.unsaid += tag not in chain.begun and bool(rows)

    def _order(self, tag: str, rows: Sequence[Experiment]) -> None:
        """Rows stand in the order in which the chain saw them end: a verdict is about those before it."""
        there, order = {row.id for row in rows}, self.chain.order.get(tag, [])
        seen = set(order)
        same = [number for number in order if number in there] == [row.id for row in rows if row.id in seen]
        self.outcome.check("ledger rows", same, f"{tag}: its rows are in another order than the audit chain")

    def _steers(self, tag: str) -> list[Steer]:
        """What people asked of the tag; the chain says the same."""
        steers = self.texts.steers(tag)
        self._wait(lambda: all((tag, one.id) in self.chain.steers for one in steers))
        for one in steers:
            same = self.chain.steers.pop((tag, one.id), None) == one.model_dump(mode="json")
            self.outcome.check("requests", same, f"{tag} request {one.id}: the ledger differs from the audit chain")
        return steers

    def _texts(self, tag: str, rows: Sequence[Experiment]) -> None:
        """Directives and notebooks that rows name are there, and say what their names say."""
        named = dict.fromkeys(one for row in rows for one in (row.program, row.notebook) if one)
        for digest in named:
            if digest not in self.read:
                self.read[digest] = self.texts.text(digest) is not None
            told = f"{tag}: a directive or notebook is missing or altered: {digest[:16]}"
            self.outcome.check("texts", self.read[digest], told)

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

    def _vouched(self, row: Experiment, entry: _Entry | None, digest: str) -> None:
        same = entry is not None and vouches(entry, row, digest)
        told = f"{row.tag} experiment {row.id}: the ledger row differs from the audit chain"
        self.outcome.check("ledger rows", same, told)

    def _row(self, row: Experiment) -> None:
        name = f"{row.tag} experiment {row.id}"
        self._snapshot(name, row)
        if self.objects is None:
            return
        try:
            committed = hashlib.sha256(self.objects.read(f"{row.commit}:{FILE}", "blob", row.snapshot_size)).hexdigest()
        except GloveboxError:
            committed = ""
        told = f"{name}: commit {row.commit[:7]} is not its snapshot"
        self.outcome.check("commits", committed == row.snapshot, told)

    def _ran(self, row: Experiment, entry: _Entry | None, accepted: _Entry | None) -> None:
        """A row that was scored began as one, and its containers are vouched for, unless a crash took the word away."""
        check, name = self.outcome.check, f"{row.tag} experiment {row.id}"
        nothing = row.status is Status.CRASH and row.val_bpb is None
        check("ledger rows", row.reason != INTERRUPTED or nothing, f"{name}: a crash ended it, and it has an outcome")
        self.unheard += row.reason == INTERRUPTED and accepted is None
        if row.reason != INTERRUPTED or accepted is not None:  # a crash may come before the chain hears of it
            same = accepted is not None and _started(accepted, row)
            check("receipts", same, f"{name}: the audit chain does not know that it began")
        self.bare += bool(entry and entry.get("containers") and not probed(entry))
        if entry is not None and "containers" in entry and not entry.get("recovered"):
            check("receipts", complete(entry), f"{name}: scored without containers that were compared with policy")

    def _rerun(self, rerun: Rerun, entry: _Entry | None, *, old: bool) -> None:
        check, name = self.outcome.check, f"{rerun.tag} rerun {rerun.id}"
        same = entry is not None and _as_rerun(entry) == rerun
        check("reruns", same, f"{name}: the ledger differs from the audit chain")
        ended = rerun.reason != INTERRUPTED
        check("reruns", ended or rerun == interrupted(rerun), f"{name}: a crash ended it, and it has an outcome")
        recovered = bool(entry and entry.get("recovered"))
        self.reruns_recovered += recovered and ended
        if old:
            return
        if entry is not None and not recovered:
            check("reruns", complete(entry), f"{name}: scored without containers that were compared with policy")
        self._snapshot(name, rerun)

    def _snapshot(self, name: str, run: Experiment | Rerun) -> None:
        if run.snapshot not in self.hashed:
            data = read(self.home.source(run.snapshot), MAX_FILE)
            self.hashed[run.snapshot] = "" if data is None else hashlib.sha256(data).hexdigest()
        same = self.hashed[run.snapshot] == run.snapshot
        self.outcome.check("snapshots", same, f"{name}: the snapshot is missing or altered")

    def _decided(
        self,
        rules: Policies,
        rows: Sequence[Experiment],
        reruns: Sequence[Rerun],
        asked: dict[int, int],
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
            wrong, replayed = replay(rules.decision, rows, reruns, digest, asked=asked, since=since, advance=advance)
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

    def ahead(self) -> None:
        """What the chain has beyond the ledger: only beside a session, and only as far as the chain says that it came
        after the ledger's moment, may that be. A held lock alone hides nothing."""
        self.lines.ahead()
        self.chain.catch_up(growing=self.beside.at_work())
        late = 0
        for (tag, number), kind, what, after in self._lost():
            late += after
            if not after:
                told = f"{tag} {kind} {number} is in the audit chain but not in the ledger"
                self.outcome.check(what, False, told)
        if self.beside.at_work():
            told = f"a session is at work: {late} runs that ended meanwhile and the end of results.tsv"
            self.outcome.unknown.append(f"{told} were not looked at")

    def _lost(self) -> list[tuple[tuple[str, int], str, str, bool]]:
        """What the chain has and the ledger does not, and whether a session may have recorded it since."""
        chain, at_work = self.chain, self.beside.at_work()
        began = set(chain.accepted) - self.known - set(chain.finished)
        found = [(began, "experiment", "receipts", chain.late_accepted)]
        found += [(set(chain.finished), "experiment", "ledger rows", set(chain.late))]
        found += [(set(chain.reruns), "rerun", "reruns", chain.late_reruns)]
        found += [(set(chain.steers), "request", "requests", chain.late_steers)]
        return [(key, kind, what, at_work and key in late) for keys, kind, what, late in found for key in sorted(keys)]


def _started(entry: _Entry, began: Experiment | Opened) -> bool:
    """Whether an entry of the chain is of this start, to the byte where it says so; also once the row has ended."""
    opened = Opened(**{name: getattr(began, name) for name in Opened.model_fields})
    if "opened" in entry and entry["opened"] != text_digest(opened.model_dump_json()):
        return False
    return (entry.get("snapshot"), entry.get("run")) == (began.snapshot, began.run)


def _as_rerun(entry: _Entry) -> Rerun | None:
    """What the chain says of a rerun; fields that came later have their defaults."""
    try:
        return Rerun.model_validate_json(json.dumps(entry.get("rerun")))
    except ValidationError:
        return None
