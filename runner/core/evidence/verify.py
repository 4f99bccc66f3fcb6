"""`glovebox verify`: does the recorded evidence add up? TRUSTED, offline, reads only.

Checked: the audit chain; ledger rows against the chain's `finished` entries; every snapshot and commit
against its hash; every verdict against the rows and reruns before it; the kept line against the keeps;
results.tsv against the ledger; the artifact's manifest. Each is looked at once: twice the rows take twice as long.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runner.core.airlock import leak_budget
from runner.core.artifacts import begun, keys, manifest, store
from runner.core.artifacts.progress import Advance, Stages
from runner.core.base import locks
from runner.core.base.errors import GloveboxError, VerifyError
from runner.core.base.files import hash_file, open_plain
from runner.core.base.home import Home
from runner.core.base.values import INTERRUPTED, Experiment, Rerun, Status
from runner.core.evidence import audit_chain, results_tsv
from runner.core.evidence.chain_index import ChainIndex
from runner.core.evidence.checkpoints import against_witness
from runner.core.evidence.git_line import FILE, MAX_FILE, GitLine
from runner.core.evidence.git_objects import Objects
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.receipts import complete, probed, row_digest
from runner.core.evidence.replay import replay
from runner.core.policy import of_tag, policy_files
from runner.core.policy.policy_files import Policies

NO_WITNESS = (
    "no witness: an end cut off the audit chain together with the ledger's rows, or an older copy of the whole bench, "
    "would not be noticed (set witness in policies/audit.yaml, then: glovebox verify --witness FILE)"
)
_MEANWHILE = 1 << 20  # bytes of results.tsv that a session may add while we look
_Entry = dict[str, Any]


@dataclass
class Outcome:
    """What `glovebox verify --json` prints."""

    checked: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    checkpoint: str | None = None  # the newest that holds, for the next `--since`

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
            "checkpoint": self.checkpoint,
        }


def verify(
    home: Home, witness: Path | None = None, *, since: str | None = None, shown: Stages | None = None
) -> Outcome:
    """Run every check on a bench.

    `witness`: the file policies/audit.yaml names, or a copy of it. `since`: a checkpoint that an earlier call returned;
    the hash chain must lead to it, and what it covers is not looked at again. Raises VerifyError if it does not.
    """
    return _Verifier(home, shown or Stages()).verify(witness, since)


class _Verifier:
    def __init__(self, home: Home, shown: Stages) -> None:
        self._home, self._shown, self.outcome = home, shown, Outcome()
        self._hashed: dict[str, str] = {}  # snapshots by their name
        self._recovered = self._bare = 0
        self._busy = False  # a session records while we look
        self._used: dict[str, str] = {}  # artifacts, and when the last experiment began that used them

    def verify(self, witness: Path | None, since: str | None) -> Outcome:
        outcome, home = self.outcome, self._home
        ledger = Ledger(home.ledger, read_only=True)
        with ledger.at_once():  # its moment comes first: what else there is may be ahead of it, never behind
            tags, self._busy = ledger.tags(), locks.held(home.runner_lock)
            chain = self._chain(since)
            self._sealed(chain, witness)
            self._calls()
            ends = chain.ends == len(chain.finished)
            told = "the audit chain finishes an experiment twice, or one without a name"
            outcome.check("ledger rows", ends, told)
            outcome.check("ledger file", ledger.sound(), "the ledger's indices do not say what its tables say")
            strays = ", ".join(ledger.strays())
            outcome.check("ledger file", not strays, f"the ledger has rows of tags it does not list: {strays}")
            line = GitLine(home.line)
            sound = self._git(line)
            rules = self._rules()
            every = list(of_tag.known(home.policies)) if rules is not None else []
            with line.objects() as objects:
                for tag in tags:
                    try:
                        self._tag(ledger, line, objects if sound else None, chain, tag, rules, every)
                    except GloveboxError as error:  # rows that are none
                        outcome.check("ledger rows", False, f"{tag}: {error}")
        self._missing(chain)
        self._unvouched()
        self._artifacts()
        return outcome

    def _git(self, line: GitLine) -> bool:
        """Whether git's objects are sound; those of a line that is not are not read, whatever they unpack to."""
        with self._shown.stage("git objects", 1) as advance:
            sound = line.sound()
            advance(1)
        self.outcome.check("git objects", sound, "git fsck finds objects that are not what their names say")
        if not sound:
            self.outcome.unknown.append("no commit was looked at")
        return sound

    def _missing(self, chain: ChainIndex) -> None:
        """What the chain ends and the ledger does not have; beside a session it may have ended since."""
        lost = [(tag, number, "experiment", "ledger rows") for tag, number in sorted(chain.finished)]
        lost += [(tag, number, "rerun", "reruns") for tag, number in sorted(chain.reruns)]
        if self._busy or locks.held(self._home.runner_lock):
            told = f"a session is at work: {len(lost)} runs that ended meanwhile, its branch and results.tsv's end"
            self.outcome.unknown.append(f"{told} were not looked at")
            return
        for tag, number, kind, what in lost:
            told = f"{tag} {kind} {number} is in the audit chain but not in the ledger"
            self.outcome.check(what, False, told)

    def _chain(self, since: str | None) -> ChainIndex:
        wanted, head = _checkpoint(since)
        chain = ChainIndex(keys.trust(self._home).audit, wanted)
        size = self._home.audit.stat().st_size if self._home.audit.exists() else 0
        try:
            with self._shown.stage("audit chain", size) as advance:
                for entry in audit_chain.read(self._home.audit, advance):
                    chain.take(entry)
            self.outcome.checked["audit entries"] = chain.length
        except GloveboxError as error:
            self.outcome.check("audit entries", False, str(error))
        if since is not None and chain.hashes.get(wanted) != head:
            raise VerifyError(
                "the audit chain does not lead to that checkpoint",
                where=str(self._home.audit),
                fix="verify without --since; compare with a backup or witness",
            )
        if chain.old:
            told = f"snapshots, commits and verdicts of {len(chain.old)} experiments up to checkpoint {wanted}"
            told += " were not looked at again"
            self.outcome.unknown.append(told)
        return chain

    def _sealed(self, chain: ChainIndex, witness: Path | None) -> None:
        outcome, seals = self.outcome, chain.checkpoints
        outcome.checked["checkpoints"] = seals.good + len(seals.wrong)
        outcome.failures += seals.wrong
        outcome.checkpoint = None if seals.newest is None else f"{seals.newest[0]}:{seals.newest[1]}"
        if seals.unsealed:
            outcome.unknown.append(f"{seals.unsealed} experiments after the last checkpoint carry no signature yet")
        if witness is None:
            outcome.unknown.append(NO_WITNESS)
            return
        public = keys.trust(self._home).audit
        seen, lost = against_witness(self._home, chain.hashes, public, witness)
        outcome.checked["witnessed checkpoints"] = seen
        outcome.failures += lost

    def _calls(self) -> None:
        """The broker's own chain; it is the broker's word, unsigned."""
        path = self._home.broker / "calls.jsonl"
        if path.exists():
            try:
                self.outcome.checked["model calls"] = sum(1 for _ in audit_chain.read(path))
            except GloveboxError as error:
                self.outcome.check("model calls", False, str(error))
            self.outcome.unknown.append("the log of model calls is a hash chain without signatures")

    def _rules(self) -> Policies | None:
        """The policies in force; without them verdicts cannot be replayed."""
        try:
            return policy_files.load(*self._home.policies)
        except GloveboxError as error:
            self.outcome.unknown.append(f"no verdict was replayed: {error}")
            return None

    def _tag(
        self,
        ledger: Ledger,
        line: GitLine,
        objects: Objects | None,
        chain: ChainIndex,
        tag: str,
        rules: Policies | None,
        every: list[Policies],
    ) -> None:
        rows, reruns = ledger.experiments(tag), ledger.reruns(tag)
        for version, started in [(run.artifact, run.started) for run in rows] + [
            (r.artifact, r.started) for r in reruns
        ]:
            self._used[version] = max(self._used.get(version, ""), started)
        since = next((at for at, row in enumerate(rows) if (tag, row.id) not in chain.old), len(rows))
        with self._shown.stage(f"{tag}: rows", len(rows)) as advance:
            for row in rows:
                entry = chain.finished.pop((tag, row.id), None)  # once: a second row of that number has none
                self._vouched(row, entry)
                if entry is None or (tag, row.id) not in chain.old:
                    self._row(objects, row)
                    self._ran(row, entry, chain.accepted.get((tag, row.id)))
                advance(1)
        for rerun in reruns:
            found = chain.reruns.pop((tag, rerun.id), None)
            self._rerun(rerun, found, old=found is not None and (tag, rerun.id) in chain.old_reruns)
        if rules is not None:
            known = begun.under(self._home, ledger.run_info(tag)["policy"], every)
            with self._shown.stage(f"{tag}: verdicts", len(rows)) as advance:
                self._decided(known or rules, rows, reruns, same_terms=known is not None, since=since, advance=advance)
            self._told(known, tag, rows)
        self._origin(ledger, tag, rows)
        self._line(line, objects, tag, rows)
        self._results(tag, rows)

    def _origin(self, ledger: Ledger, tag: str, rows: Sequence[Experiment]) -> None:
        """A tag that was begun with another's best begins with just that file."""
        origin = ledger.origin(tag)
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

    def _row(self, objects: Objects | None, row: Experiment) -> None:
        name = f"{row.tag} experiment {row.id}"
        self._snapshot(name, row)
        if objects is None:
            return
        try:
            committed = hashlib.sha256(objects.read(f"{row.commit}:{FILE}", "blob")).hexdigest()
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
        self._recovered += bool(entry and entry.get("recovered"))
        self._bare += bool(entry and entry.get("containers") and not probed(entry))
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
        if run.snapshot not in self._hashed:
            data = _read(self._home.source(run.snapshot), MAX_FILE)
            self._hashed[run.snapshot] = "" if data is None else hashlib.sha256(data).hexdigest()
        same = self._hashed[run.snapshot] == run.snapshot
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

    def _unvouched(self) -> None:
        """What the entries themselves leave open."""
        if self._recovered:
            told = f"{self._recovered} experiments were entered from the ledger after a crash: nobody saw them run"
            self.outcome.unknown.append(told)
        if self._bare:
            told = f"{self._bare} experiments ran without a red team whose probes all held (glovebox redteam)"
            self.outcome.unknown.append(told)

    def _line(self, line: GitLine, objects: Objects | None, tag: str, rows: Sequence[Experiment]) -> None:
        check, keeps = self.outcome.check, [row for row in rows if row.status is Status.KEEP]
        before: list[str] = []
        for row in (
            keeps if objects is not None else ()
        ):  # each keep's commit follows the one before it, and holds train.py alone
            try:
                follows = objects is not None and objects.commit(row.commit) == (before, [FILE])
            except GloveboxError:
                follows = False
            check("kept lines", follows, f"{tag} experiment {row.id}: its commit does not follow the keep before it")
            before = [row.commit]
        head = line.head(tag)
        there = self._busy or head == (keeps[-1].commit if keeps else None)
        check("kept lines", there, f"{tag}: the branch is not at its last keep")
        scored = all(row.val_bpb is not None for row in keeps)
        check("kept lines", scored, f"{tag}: a kept row has no score")
        audited = all(row.evaluation is None or not row.evaluation.audited or row.evaluation.whole for row in keeps)
        check("kept lines", audited, f"{tag}: a kept row was not audited on every row")

    def _results(self, tag: str, rows: Sequence[Experiment]) -> None:
        lines = ["\t".join(results_tsv.COLUMNS), *(results_tsv.line(row) for row in rows)]
        expected = "".join(f"{line}\n" for line in lines).encode()
        found = _read(self._home.tag(tag) / "results.tsv", len(expected) + _MEANWHILE)
        same = found == expected or (self._busy and found is not None and found.startswith(expected))
        self.outcome.check("results.tsv", same or not rows, f"{tag}: results.tsv differs from the ledger")

    def _artifacts(self) -> None:
        trust, check = keys.trust(self._home), self.outcome.check
        for folder in sorted(p for p in self._home.store.glob("[a-z0-9]*") if p.is_dir()):
            if not (folder / manifest.NAME).exists() and folder.name not in self._used:
                self.outcome.unknown.append(f"store/{folder.name} is no artifact, and none of ours: remove it")
                continue
            try:
                statement = manifest.verified(folder, trust, self._last(folder.name))[0]
                store.same_files(folder, statement)
                bad = [s.name for s in statement.subject if hash_file(folder / s.name)[0] != s.digest.sha256]
                check("artifacts", not bad, f"artifact {folder.name}: altered {', '.join(bad)}")
                if statement.predicate.expires <= datetime.now(UTC):
                    self.outcome.unknown.append(f"artifact {folder.name} has expired since it was used")
            except (GloveboxError, OSError) as error:
                check("artifacts", False, f"artifact {folder.name}: {error}")

    def _last(self, version: str) -> datetime | None:
        """When an artifact was last used: what expired since was good then."""
        try:
            return datetime.fromisoformat(self._used[version]).astimezone(UTC)
        except (KeyError, ValueError, OverflowError):
            return None


def _checkpoint(text: str | None) -> tuple[int, str]:
    """Number and hash of the entry that a checkpoint covers up to; (-1, "") without one."""
    if text is None:
        return -1, ""
    number, _, head = text.partition(":")
    if not number.isdecimal() or len(number) > 12 or not head:
        raise VerifyError("not a checkpoint", where="--since", fix="give what verify printed as checkpoint: N:HASH")
    return int(number), head


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
