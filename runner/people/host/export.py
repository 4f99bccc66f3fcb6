"""`glovebox export`: a tag as a folder that another machine can check and start from. TRUSTED.

    branch.bundle   git branch exp/{GPU}/{tag}: one commit a keep, then results.tsv and the session report
    rows.json       experiments, reruns and the rules they were decided by
    results.tsv   session.md   report.html
    manifest.json   SHA-256 of all of these, in a DSSE envelope signed by the bench's keys

Upstream shares nights as branches of that name (its PR #44). The branch also appears in the bench's own repository.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from runner.core.airlock import snapshot
from runner.core.artifacts import keys, signing, store
from runner.core.base import files, gpus
from runner.core.base.errors import UsageError
from runner.core.base.home import Home
from runner.core.base.launching import Frozen, Sha256
from runner.core.base.steering import Steer
from runner.core.base.values import Experiment, Rerun, Status, Tag
from runner.core.decision import standing
from runner.core.evidence import results_tsv
from runner.core.evidence.git_line import GitLine, message
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.texts import Texts
from runner.core.findings import analysis, transfers
from runner.core.policy.policy_files import Decision, Policies
from runner.people.pages import report, session_report

MANIFEST = "manifest.json"
ROWS = "rows.json"
BUNDLE = "branch.bundle"
FILES = (BUNDLE, ROWS, "results.tsv", "session.md", "report.html")
_MODEL = re.compile(r"\b(?:GB|GH|[ABHLTV])?\d{2,4}[A-Z]{0,2}\b|\bRTX \d{4}(?: Ti)?\b")
Hardware = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,30}$")]


class Rows(Frozen):
    """rows.json."""

    format: Literal["glovebox-rows/1"] = "glovebox-rows/1"
    tag: Tag
    hardware: Hardware
    decision: Decision
    experiments: list[Experiment]
    reruns: list[Rerun]
    steers: tuple[Steer, ...] = ()  # what people asked for; none in an export that is older


class Manifest(Frozen):
    """The signed payload."""

    type_: Literal["https://glovebox.invalid/export/v1"] = Field(
        default="https://glovebox.invalid/export/v1", alias="_type"
    )
    tag: Tag
    files: dict[str, Sha256]


def hardware() -> str:
    """Short name of the machine's first GPU for a branch name, CPU without one."""
    found = gpus.cards()
    return short(found[0].name) if found else "CPU"


def short(name: str) -> str:
    """`NVIDIA H100 80GB HBM3` is H100, as people name it."""
    found = _MODEL.search(name.replace("NVIDIA", "").replace("GeForce", ""))
    word = found[0] if found else name
    return re.sub(r"[^A-Za-z0-9]+", "-", word).strip("-")[:31] or "GPU"


def export(home: Home, policies: Policies, tag: str, machine: str, folder: Path) -> Path:
    """Write the folder; raises GloveboxError if it exists or nothing was kept."""
    ledger, line = Ledger(home.ledger, read_only=True), GitLine(home.line, make=False)
    rows, reruns = ledger.experiments(tag), ledger.reruns(tag)
    steers = [one.model_copy(update={"text": ""}) for one in Texts(ledger).steers(tag) if one.verb == "veto"]
    keeps = [row for row in rows if row.status is Status.KEEP]
    if not keeps:
        raise UsageError(f"nothing was kept in {tag} yet", where="ledger", fix="see: glovebox status")
    if folder.exists():
        raise UsageError("exists already", where=str(folder), fix="name another with --output")
    told = Rows(
        tag=tag, hardware=machine, decision=policies.decision, experiments=rows, reruns=reruns, steers=tuple(steers)
    )
    # Made and signed where nobody else can write, then copied out: the folder that is named may be a stranger's.
    with tempfile.TemporaryDirectory(dir=home.root) as private:
        partial = Path(private)
        files.write(partial / ROWS, told.model_dump_json(indent=1))
        results_tsv.write(partial / "results.tsv", rows)
        files.write(partial / "session.md", _session(home, policies, told, ledger.run_info(tag)["artifact"], line))
        files.write(partial / "report.html", report.write(home, ledger, policies, tag).read_bytes())
        branch = f"exp/{machine}/{tag}"
        line.publish(branch, [_step(line, row) for row in keeps], _closing(partial, tag, keeps))
        line.bundle(branch, partial / BUNDLE)
        digests = {name: files.hash_file(partial / name)[0] for name in FILES}
        payload = Manifest(tag=tag, files=digests).model_dump_json(by_alias=True).encode()
        signing.write(partial / MANIFEST, payload, keys.signers(home))
        with files.whole_folder(folder) as given:
            for name in (*FILES, MANIFEST):
                files.write(given / name, (partial / name).read_bytes())
    return folder


def _step(line: GitLine, row: Experiment) -> tuple[dict[str, bytes], str, str]:
    """Files, message and time of one keep's commit."""
    score = "" if row.val_bpb is None else f": val_bpb {row.val_bpb:.6f}"
    return {"train.py": line.content(row.commit)}, message(f"experiment {row.id}{score}", row.description), row.started


def _closing(folder: Path, tag: str, keeps: list[Experiment]) -> tuple[dict[str, bytes], str, str]:
    files = {name: (folder / name).read_bytes() for name in ("results.tsv", "session.md")}
    return files, f"results of {tag}\n", keeps[-1].started


def _session(home: Home, policies: Policies, told: Rows, artifact: str, line: GitLine) -> str:
    keeps = [row for row in told.experiments if row.status is Status.KEEP]
    noise = standing.noise(policies.decision, told.experiments, told.reruns)
    profile = store.shown(home, artifact).predicate.profile
    return session_report.write(
        told.experiments,
        analysis.study(told.experiments, noise, lambda row: snapshot.kept(home, row.snapshot)),
        transfers.transfers(told.experiments, told.reruns, policies.decision.alpha),
        tag=told.tag,
        hardware=told.hardware,
        artifact=artifact,
        seconds=float(profile["time_budget_s"]),
        first=line.content(keeps[0].commit),
        last=line.content(keeps[-1].commit),
    )
