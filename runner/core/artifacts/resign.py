"""Signing what is there already: by another holder, or with the successor of a rotated key. TRUSTED.

A signature says that its holder vouches for the files, so nothing is signed that was not accepted before.
"""

from __future__ import annotations

from pathlib import Path

from runner.core.artifacts import keys, manifest, signing
from runner.core.artifacts.manifest import Subject
from runner.core.artifacts.parallel import in_parallel
from runner.core.base.errors import ArtifactError
from runner.core.base.files import hash_file
from runner.core.base.home import Home


def rotate(home: Home, name: str, successor: str) -> tuple[keys.TrustedKey, list[str], list[str]]:
    """(new key, folders signed again, folders that were not acceptable and stay as they are)."""
    accepted, skipped = list[Path](), list[Path]()
    for folder in _folders(home):
        (accepted if _acceptable(folder, keys.trust(home)) else skipped).append(folder)
    key = keys.rotate(home, name, successor)
    for folder in accepted:
        signing.add(folder / manifest.NAME, keys.signers(home))
    return key, sorted({f.name for f in accepted}), sorted({f.name for f in skipped} - {f.name for f in accepted})


def countersign(home: Home, version: str) -> None:
    """Add the signatures of the keys that are here to an artifact a trusted key has signed and whose files match."""
    folder = home.artifacts / version
    if not (folder / manifest.NAME).exists():
        raise ArtifactError("no such artifact", where=str(folder), fix="see: ls artifacts in the bench")
    trust = keys.trust(home).model_copy(update={"threshold": 1})
    statement, data = manifest.verified(folder, trust)

    def matches(subject: Subject) -> bool:
        return hash_file(folder / subject.name)[0] == subject.digest.sha256

    if not all(in_parallel(matches, statement.subject)):
        raise ArtifactError("does not match its manifest", where=str(folder), fix="do not sign it; prepare again")
    signing.add(folder / manifest.NAME, keys.signers(home))
    kept = home.store / version / manifest.NAME
    if kept.exists() and kept.read_bytes() == data:
        signing.add(kept, keys.signers(home))


def _folders(home: Home) -> list[Path]:
    found = (*home.artifacts.glob("[a-z0-9]*-*"), *home.store.glob("[a-z0-9]*-*"))
    return sorted(folder for folder in found if (folder / manifest.NAME).exists())


def _acceptable(folder: Path, trust: keys.Trust) -> bool:
    try:
        manifest.read(folder, trust)
    except ArtifactError:
        return False
    return True
