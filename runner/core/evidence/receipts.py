"""What vouches for one experiment: its receipt, an entry of the audit chain that the next checkpoint signs. TRUSTED.

A receipt names the policies, the artifact and the snapshot it ran under, each container with its image and the hash of
the specification that the engine's inspect was found equal to, the newest red team result under these policies, the
outcome, and the hash of the whole ledger row.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runner.core.base.files import whole
from runner.core.base.home import Home
from runner.core.base.launching import EngineResult, Frozen
from runner.core.base.values import Experiment, Rerun
from runner.core.evidence import audit_chain

_MAX_BYTES = 64 << 10
_ROW = {"tag", "id", "status", "reason", "val_bpb", "claimed", "confirmed", "causality", "evaluation"}
_LATER = (
    "interval", "pairs", "pace", "hopeless", "lane", "evaluation", "neighbours",
    "gain", "probability", "sigma", "parent", "speed", "attention",
)  # fmt: skip
_SINCE = ("total", "kinds", "told")  # later still; 0 says something of them
_TERMS = {"snapshot", "commit", "run", "artifact", "policy"}


class Probes(Frozen):
    """A red team's result: `policy` and `runtime` are those it ran under."""

    ok: bool
    policy: str
    runtime: str
    when: str
    blocked: int
    open: int
    skipped: int
    removed: int  # controls taken away one by one; 0: not tried
    unnoticed: int


class Kernels(Frozen):
    """Whether this machine's kernels keep elements apart (trainer/evaluator/isolation.py)."""

    ok: bool
    image: str
    device: str
    torch: str
    when: str
    cases: int
    coupled: int


def _kernels(home: Home) -> Path:
    return home.root / "kernels.json"


def keep_kernels(home: Home, found: Kernels) -> None:
    """Remember the newest result of `doctor --kernels`."""
    with whole(_kernels(home)) as file:
        file.write(found.model_dump_json().encode())


def kernels(home: Home, engines: list[EngineResult]) -> Kernels | None:
    """The newest result, if it was taken on the image that scored."""
    try:
        with _kernels(home).open("rb") as file:
            found = Kernels.model_validate_json(file.read(_MAX_BYTES))
    except (OSError, ValidationError):
        return None
    return found if len(engines) > 1 and found.image == engines[1].image else None


def keep_probes(home: Home, probes: Probes) -> None:
    """Remember the newest result of a red team."""
    with whole(home.redteam) as file:
        file.write(probes.model_dump_json().encode())


def probes(home: Home, policy: str) -> Probes | None:
    """The newest result, if it was taken under these policies."""
    try:
        with home.redteam.open("rb") as file:
            found = Probes.model_validate_json(file.read(_MAX_BYTES))
    except (OSError, ValidationError):
        return None
    return found if found.policy == policy else None


def vouches(entry: dict[str, Any], row: Experiment, digest: str) -> bool:
    """Whether an entry is of this row, whose text in the ledger has this SHA-256."""
    return bool(entry["text"] == digest if "text" in entry else entry.get("row") == row_digest(row))


def row_digest(row: Experiment) -> str:
    """What older entries carry: SHA-256 over every field of a row, without those that came later and say nothing.

    A 0 says as much as nothing there, which is why an entry has the hash of the row's very text now.
    """
    document = row.model_dump(mode="json")
    if row.crash is not None and row.crash.template is None:
        document["crash"] = {"error": row.crash.error, "line": row.crash.line}
    for name in _LATER:
        if document[name] in (None, 0, [], ""):
            del document[name]
    for name in _SINCE:
        if document[name] is None:
            del document[name]
    return hashlib.sha256(audit_chain.canonical(document)).hexdigest()


def receipt(
    row: Experiment,
    digest: str,
    engines: list[EngineResult],
    found: Probes | None,
    apart: Kernels | None = None,
    *,
    recovered: bool = False,
) -> dict[str, Any]:
    """The entry for one row; `digest`: of its text in the ledger; `engines`: its trainer and, if it came so far, its
    evaluator.

    `recovered`: written after a crash from the ledger alone, so that no container is vouched for.
    """
    return {
        **row.model_dump(mode="json", include=_ROW | _TERMS),
        "text": digest,
        "containers": _containers(engines),
        **({"recovered": True} if recovered else {}),
        "probes": None if found is None else found.model_dump(mode="json"),
        "kernels": None if apart is None else apart.model_dump(mode="json"),
    }


def of_rerun(rerun: Rerun, engines: list[EngineResult], *, recovered: bool = False) -> dict[str, Any]:
    """The entry for one rerun: the whole of it, and its containers."""
    extra = {"recovered": True} if recovered else {}
    return {"rerun": rerun.model_dump(mode="json"), "containers": _containers(engines), **extra}


def _containers(engines: list[EngineResult]) -> list[dict[str, str]]:
    return [
        {"role": role, "image": engine.image, "container": engine.container, "specification": engine.specification}
        for role, engine in zip(("trainer", "evaluator"), engines, strict=False)
    ]


def complete(entry: dict[str, Any]) -> bool:
    """Whether all containers a scored experiment needs are named, each compared with a specification."""
    containers = entry.get("containers")
    if not isinstance(containers, list) or not all(isinstance(c, dict) for c in containers):
        return False
    told = entry.get("rerun", entry)
    scored = isinstance(told, dict) and told.get("val_bpb") is not None
    roles = [c.get("role") for c in containers if c.get("specification") and c.get("image")]
    return len(roles) == len(containers) and (not scored or roles == ["trainer", "evaluator"])


def probed(entry: dict[str, Any]) -> bool:
    """Whether a red team found the walls of this experiment's policies to hold."""
    found = entry.get("probes")
    return isinstance(found, dict) and found.get("ok") is True
