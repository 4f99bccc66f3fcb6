"""What `glovebox verify` looks at of kept lines: commits, references, branches, results.tsv. TRUSTED, reads only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from runner.core.base.errors import GloveboxError
from runner.core.base.files import read_plain
from runner.core.base.home import Home
from runner.core.base.values import Experiment, Status
from runner.core.evidence import results_tsv
from runner.core.evidence.beside import Beside
from runner.core.evidence.chain_index import ChainIndex
from runner.core.evidence.git_line import FILE, GitLine
from runner.core.evidence.git_objects import Objects
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.outcome import Outcome

_MEANWHILE = 1 << 20  # bytes of results.tsv that a session may add while we look
_BRANCH = re.compile(r"refs/heads/(?:autoresearch|exp/[A-Za-z0-9-]{1,40})/([^/]+)")  # keeps, and an export
_EXPERIMENT = re.compile(r"refs/experiments/([^/]+)/([1-9][0-9]{0,17})")


@dataclass
class KeptLines:
    """The lines of a bench, tag by tag; `before`: references before the moment that the ledger is read at."""

    home: Home
    outcome: Outcome
    ledger: Ledger
    line: GitLine
    chain: ChainIndex
    beside: Beside
    before: dict[str, str] | None  # None: some are no references
    references: dict[str, str] | None = None  # not older than that moment
    expected: dict[str, tuple[str | None, bytes]] = field(default_factory=dict)  # by tag: last keep, results.tsv

    def look(self, tag: str, rows: Sequence[Experiment], objects: Objects | None) -> None:
        """Check one tag's keeps, and that a reference names the commit of every experiment."""
        check, keeps = self.outcome.check, [row for row in rows if row.status is Status.KEEP]
        if objects is not None:
            self._follow(objects, tag, keeps)
        scored = all(row.val_bpb is not None for row in keeps)
        check("kept lines", scored, f"{tag}: a kept row has no score")
        audited = all(row.evaluation is None or not row.evaluation.audited or row.evaluation.whole for row in keeps)
        check("kept lines", audited, f"{tag}: a kept row was not audited on every row")
        for row in rows:
            named = self.references is None or self.references.get(f"refs/experiments/{tag}/{row.id}") == row.commit
            check("references", named, f"{tag} experiment {row.id}: its reference does not name its commit")
        self.expected[tag] = keeps[-1].commit if keeps else None, _results(rows)

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

    def strange(self, tags: Sequence[str], objects: Objects | None) -> None:
        """References of nothing that the ledger knows: to a person's git they are as good as ours."""
        last = {tag: self.ledger.last_number(tag) for tag in tags}
        self.outcome.check("references", self.before is not None, "some references are no references")
        for name, commit in (self.before or {}).items():
            branch, run = _BRANCH.fullmatch(name), _EXPERIMENT.fullmatch(name)
            ours = branch is not None and branch[1] in last
            ours = ours or (run is not None and int(run[2]) <= last.get(run[1], 0))
            if ours and objects is not None:
                ours = _commit(objects, commit)
            self.outcome.check("references", ours, f"a reference that is none of ours: {name}")
            if ours and branch is not None and name.startswith("refs/heads/exp/"):
                self.outcome.unknown.append(f"{name} was exported: it was not compared with the keeps")

    def ahead(self) -> None:
        """Branches and results.tsv, which a session may have moved on while we looked."""
        found = dict[str, tuple[str | None, bytes | None]]()

        def fits(tag: str) -> bool:
            return tag in found and self._branch_fits(tag, found[tag][0]) and self._table_fits(tag, found[tag][1])

        def settled() -> bool:
            found.update({tag: (self.line.head(tag), self._table(tag)) for tag in self.expected if not fits(tag)})
            return all(map(fits, self.expected))

        self.beside.wait(settled, lambda: self.chain.catch_up(growing=True))
        self.chain.catch_up(growing=self.beside.at_work())
        for tag, (head, table) in found.items():
            self.outcome.check("kept lines", self._branch_fits(tag, head), f"{tag}: the branch is not at its last keep")
            told = f"{tag}: results.tsv differs from the ledger"
            self.outcome.check("results.tsv", self._table_fits(tag, table), told)

    def _branch_fits(self, tag: str, head: str | None) -> bool:
        return head == self.expected[tag][0] or (self.beside.at_work() and head in self.chain.late_keeps(tag))

    def _table(self, tag: str) -> bytes | None:
        return read(self.home.tag(tag) / "results.tsv", len(self.expected[tag][1]) + _MEANWHILE)

    def _table_fits(self, tag: str, found: bytes | None) -> bool:
        expected = self.expected[tag][1]
        if found == (expected or None):
            return True
        late = sum(of == tag for of, _ in self.chain.late) if self.beside.at_work() else 0
        most = late + (not expected) if late else 0  # lines; the first of a tag come with a heading
        return found is not None and found.startswith(expected) and found[len(expected) :].count(b"\n") <= most > 0


def _commit(objects: Objects, name: str) -> bool:
    try:
        objects.commit(name)
    except GloveboxError:
        return False
    return True


def _results(rows: Sequence[Experiment]) -> bytes:
    """What results.tsv must be; empty for a tag without rows, of which there need be none."""
    lines = ["\t".join(results_tsv.COLUMNS), *(results_tsv.line(row) for row in rows)]
    return "".join(f"{line}\n" for line in lines).encode() if rows else b""


def read(path: Path, most: int) -> bytes | None:
    """A plain file of at most so many bytes; None for anything else."""
    with suppress(OSError):
        return read_plain(path, most)
    return None
