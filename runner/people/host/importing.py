"""`glovebox init --from FOLDER`: check an export and begin from its best train.py. TRUSTED, hostile folder.

Checked: that a key the person named, or this bench trusts, signed exactly these files; that rows, reruns and verdicts
follow from each other by the rules they name; that the branch holds just the kept files. The scores themselves stay the
other bench's word.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from runner.core.airlock import snapshot
from runner.core.artifacts import keys, signing
from runner.core.artifacts.keys import Trust
from runner.core.base import files, locks
from runner.core.base.errors import ArtifactError, GloveboxError, VerifyError
from runner.core.base.files import open_plain
from runner.core.base.home import Home
from runner.core.base.steering import vetoes
from runner.core.base.values import Experiment, Status
from runner.core.decision.decide import FIRST_SEED
from runner.core.evidence import audit_chain, results_tsv
from runner.core.evidence.checkpoints import Sealer
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.replay import replay
from runner.people.host.export import BUNDLE, FILES, MANIFEST, ROWS, Manifest, Rows

MAX_FILE = 256 << 20
MAX_ROWS = 256 << 20  # 10,000 rows are 40 MiB
_PAGE = "report.html"  # kept as text: whoever signed it could have put a script into it
_ASK = "ask for the folder again, and for the key: glovebox keys list --json"


class Imported(NamedTuple):
    """What was found."""

    rows: Rows
    best: Experiment
    source: bytes
    checked: dict[str, int]
    files: dict[str, bytes]  # as they were checked


def read(folder: Path, trust: Trust, source_bytes: int) -> Imported:
    """Check an export completely before anything of it is used; raises ArtifactError, VerifyError."""
    payload, envelope = signing.verified(folder / MANIFEST, trust)
    try:
        manifest = Manifest.model_validate_json(payload)
    except ValidationError:
        raise ArtifactError("not the manifest of an export", where=str(folder), fix=_ASK) from None
    if set(manifest.files) != set(FILES):
        raise ArtifactError("lists other files than an export has", where=str(folder), fix=_ASK)
    with tempfile.TemporaryDirectory() as private:
        copies = {name: _copy(folder / name, Path(private) / name, digest) for name, digest in manifest.files.items()}
        rows = _rows(copies[ROWS], manifest.tag)
        checked = _consistent(rows, copies["results.tsv"])
        keeps = [row for row in rows.experiments if row.status is Status.KEEP]
        if not keeps:
            raise VerifyError("nothing was kept", where=str(folder), fix=_ASK)
        source = _branch(copies[BUNDLE], rows, keeps, Path(private))
        copies[MANIFEST] = Path(private) / MANIFEST
        copies[MANIFEST].write_bytes(envelope)
        kept = {name: path.read_bytes() for name, path in copies.items()}
    if len(source) > source_bytes:
        raise VerifyError("its train.py is larger than policy allows", where=str(folder), fix="policies/agent.yaml")
    return Imported(rows, keeps[-1], source, {**checked, "files": len(FILES), "commits": len(keeps)}, kept)


def _copy(source: Path, target: Path, sha256: str) -> Path:
    """Copy while hashing, so that what is used is what was checked."""
    digest, total = hashlib.sha256(), 0
    try:
        with open_plain(source) as reader, target.open("xb") as writer:
            while data := reader.read(1 << 20):
                digest.update(data)
                writer.write(data)
                total += len(data)
                if total > MAX_FILE:
                    raise ArtifactError("larger than any export", where=str(source), fix=_ASK)
    except OSError as error:
        raise ArtifactError(f"cannot be read: {error.strerror}", where=str(source), fix=_ASK) from None
    if digest.hexdigest() != sha256:
        raise ArtifactError("differs from the signed manifest", where=str(source), fix=_ASK)
    return target


def _rows(path: Path, tag: str) -> Rows:
    try:
        if path.stat().st_size > MAX_ROWS:
            raise ValueError
        rows = Rows.model_validate_json(path.read_bytes())
    except (ValidationError, ValueError):
        raise VerifyError("malformed rows", where=ROWS, fix=_ASK) from None
    known = {row.id for row in rows.experiments}
    strange = [r for r in rows.reruns if r.tag != tag or r.seed <= FIRST_SEED or r.experiment not in known]
    if strange or any(row.status is Status.KEEP and row.val_bpb is None for row in rows.experiments):
        raise VerifyError("reruns of something else, or a keep without score", where=ROWS, fix=_ASK)
    if rows.tag != tag or not _in_order(rows.experiments) or any(row.tag != tag for row in rows.experiments):
        raise VerifyError("rows of another tag, or out of order", where=ROWS, fix=_ASK)
    return rows


def _in_order(rows: Sequence[Experiment]) -> bool:
    """Whether every number is there once, and each lane ended its experiments in the order it began them."""
    lanes = {row.lane: [one.id for one in rows if one.lane == row.lane] for row in rows}
    return len({row.id for row in rows}) == len(rows) and all(ids == sorted(ids) for ids in lanes.values())


def _consistent(rows: Rows, table: Path) -> dict[str, int]:
    wrong, replayed = replay(rows.decision, rows.experiments, rows.reruns, asked=vetoes(rows.steers))
    if wrong:
        raise VerifyError(wrong[0], where=ROWS, fix=_ASK)
    expected = ["\t".join(results_tsv.COLUMNS), *(results_tsv.line(row) for row in rows.experiments)]
    if table.read_bytes().decode("utf-8", "replace").splitlines() != expected:
        raise VerifyError("differs from the rows", where="results.tsv", fix=_ASK)
    return {"rows": len(rows.experiments), "verdicts": replayed}


def _branch(bundle: Path, rows: Rows, keeps: list[Experiment], private: Path) -> bytes:
    """The best train.py, from a branch that holds the kept files and nothing else."""
    line = GitLine(private / "line.git")
    branch = f"exp/{rows.hardware}/{rows.tag}"
    commits = line.fetch(bundle, branch)
    if len(commits) != len(keeps) + 1:
        raise VerifyError(f"{len(commits)} commits for {len(keeps)} keeps", where=branch, fix=_ASK)
    for number, (commit, row) in enumerate(zip(commits, [*keeps, keeps[-1]], strict=True)):
        names = ["train.py"] if number < len(keeps) else ["results.tsv", "session.md", "train.py"]
        if line.names(commit) != names:
            raise VerifyError(f"commit {commit[:7]} holds other files", where=branch, fix=_ASK)
        if hashlib.sha256(line.content(commit)).hexdigest() != row.snapshot:
            raise VerifyError(f"commit {commit[:7]} is not experiment {row.id}", where=branch, fix=_ASK)
    path = private / "best.py"
    path.write_bytes(line.content(commits[-1]))
    return snapshot.read(path, len(path.read_bytes()) + 1)


def trusting(home: Home, public: str | None) -> Trust:
    """The keys an import may be signed by: the one that was named, else those of this bench."""
    if public is None:
        return keys.trust(home)
    return keys.only(public)


def begin(home: Home, found: Imported) -> dict[str, Any]:
    """Make its best train.py the one new tags begin with, keep the export and note it; returns what to print.

    Raises BusyError beside a run: a chain has one writer.
    """
    with locks.hold(home.runner_lock, "init --from"):
        document = _begin(home, found)
    return document | {"not_verified": ["the scores are the other bench's word: the first experiment measures yours"]}


def _begin(home: Home, found: Imported) -> dict[str, Any]:
    kept = home.root / "imports" / found.rows.tag
    shutil.rmtree(kept, ignore_errors=True)
    with files.whole_folder(kept) as folder:
        for name, data in found.files.items():
            files.write(folder / (f"{name}.txt" if name == _PAGE else name), data)
    files.write(home.seed, found.source)
    document = {
        "from": found.rows.tag,
        "hardware": found.rows.hardware,
        "experiment": found.best.id,
        "snapshot": found.best.snapshot,
        "artifact": found.best.artifact,
        "val_bpb": found.best.val_bpb,
        "checked": found.checked,
    }
    try:
        log = audit_chain.AuditLog(home.audit)
        log.append("imported", document)
        Sealer(home, "").seal(log)
    except OSError as error:
        raise GloveboxError(f"cannot be written: {error.strerror}", where=str(home.audit), fix="free space") from None
    return document
