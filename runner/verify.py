"""`glovebox verify`: does the recorded evidence add up? TRUSTED, offline, reads only.

Checked: the audit chain; ledger rows against the chain's `finished` entries; every snapshot and commit
against its hash; the kept line against the keeps; results.tsv against the ledger; the artifact's manifest.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from typing import Any

from runner import audit, keys, results
from runner.artifacts import manifest
from runner.artifacts.files import hash_file
from runner.errors import GloveboxError
from runner.gitline import GitLine
from runner.home import Home
from runner.ledger import Ledger
from runner.recording import row_digest
from runner.records import Experiment, Status

NOT_VERIFIED = (
    "the audit chain carries no signatures yet: someone who can write the bench can rewrite all of it",
    "a truncated end of the audit chain, unless the ledger still holds the rows",
)


@dataclass
class Outcome:
    """What `glovebox verify --json` prints."""

    checked: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def check(self, what: str, holds: bool, failure: str) -> None:
        """Count one check; remember its failure."""
        self.checked[what] = self.checked.get(what, 0) + 1
        if not holds:
            self.failures.append(failure)

    def document(self) -> dict[str, Any]:
        return {
            "ok": not self.failures,
            "checked": self.checked,
            "not_verified": list(NOT_VERIFIED),
            "failures": self.failures,
        }


def verify(home: Home) -> Outcome:
    """Run every check on a bench."""
    outcome = Outcome()
    entries: list[dict[str, Any]] = []
    try:
        entries = audit.verify(home.audit)
        outcome.check("audit entries", True, "")
        outcome.checked["audit entries"] = len(entries)
    except GloveboxError as error:
        outcome.check("audit entries", False, str(error))
    finished = audit.finished(entries)
    ledger = Ledger(home.ledger, read_only=True)
    line = GitLine(home.line)
    seen: set[tuple[str, int]] = set()
    for tag in ledger.tags():
        rows = ledger.experiments(tag)
        seen.update((row.tag, row.id) for row in rows)
        for row in rows:
            _row(outcome, home, line, row, finished.get((row.tag, row.id)))
        _line(outcome, line, tag, rows)
        _results(outcome, home, tag, rows)
    for tag, number in sorted(set(finished) - seen):
        outcome.check("ledger rows", False, f"{tag} experiment {number} is in the audit chain but not in the ledger")
    _artifacts(outcome, home)
    return outcome


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


def _sha256_of(home: Home, row: Experiment) -> str:
    try:
        return hash_file(home.snapshots / f"{row.snapshot}.py")[0]
    except OSError:
        return ""


def _line(outcome: Outcome, line: GitLine, tag: str, rows: list[Experiment]) -> None:
    keeps = [row for row in rows if row.status is Status.KEEP]
    head = line.head(tag)
    outcome.check(
        "kept lines", head == (keeps[-1].commit if keeps else None), f"{tag}: the branch is not at its last keep"
    )
    better = all(b.val_bpb is not None and a.val_bpb is not None for a, b in itertools.pairwise(keeps))
    outcome.check("kept lines", better, f"{tag}: a kept row has no score")


def _results(outcome: Outcome, home: Home, tag: str, rows: list[Experiment]) -> None:
    path = home.tag(tag) / "results.tsv"
    expected = ["\t".join(results.COLUMNS), *(results.line(row) for row in rows)]
    found = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    outcome.check("results.tsv", found == expected or not rows, f"{tag}: results.tsv differs from the ledger")


def _artifacts(outcome: Outcome, home: Home) -> None:
    trust = keys.trust(home)
    for folder in sorted(p for p in home.store.glob("[a-z0-9]*") if p.is_dir()):
        try:
            statement = manifest.read(folder, trust)
            bad = [s.name for s in statement.subject if hash_file(folder / s.name)[0] != s.digest.sha256]
            outcome.check("artifacts", not bad, f"artifact {folder.name}: altered {', '.join(bad)}")
        except (GloveboxError, OSError) as error:
            outcome.check("artifacts", False, f"artifact {folder.name}: {error}")
