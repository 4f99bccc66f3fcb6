"""The runner's own verified copy of an artifact. TRUSTED; the source folder may belong to anyone.

An artifact is copied while it is hashed, into a folder only the runner can write, and appears there under
its final name only when every file matched. Containers mount the copy, so a later change of the source
changes nothing. Before every run the copy's manifest (expiry, signature) is read again and sizes compared.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path

from runner import keys
from runner.artifacts import manifest
from runner.artifacts.manifest import Statement
from runner.errors import ArtifactError
from runner.home import Home


def latest(home: Home) -> str:
    """Version of the newest prepared artifact; raises ArtifactError when there is none."""
    versions = sorted(
        (p for p in home.artifacts.glob("[a-z0-9]*") if (p / manifest.NAME).is_file()),
        key=lambda p: (p / manifest.NAME).stat().st_mtime_ns,
    )
    if not versions:
        raise ArtifactError("no artifacts", where=str(home.artifacts), fix="run: glovebox prepare --profile demo")
    return versions[-1].name


def admit(home: Home, version: str) -> Statement:
    """Verify an artifact into the store, or re-check the copy already there; returns its statement."""
    target = home.store / version
    source = target if target.is_dir() else home.artifacts / version
    trust, trusted = keys.trusted(home)
    statement = manifest.read(source, trusted, trust.threshold, trust.minimum_serial)
    if statement.predicate.version != version:
        raise ArtifactError(
            f"the manifest is for {statement.predicate.version}",
            where=str(source),
            fix="do not rename artifact folders",
        )
    if source is target:
        _check_copy(target, statement)
    else:
        _copy(source, target, statement)
    return statement


def _check_copy(target: Path, statement: Statement) -> None:
    """The store is ours: sizes and the file list show an accident; hashes were checked while copying."""
    _same_files(target, statement)
    for name, size in statement.predicate.sizes.items():
        if (target / name).stat().st_size != size:
            raise ArtifactError(
                "changed size in the store", where=str(target / name), fix=f"remove {target} and run again"
            )


def _same_files(folder: Path, statement: Statement) -> None:
    listed = {subject.name for subject in statement.subject}
    found = set(manifest.list_files(folder))
    for name in sorted(found - listed):
        raise ArtifactError("a file the manifest does not list", where=str(folder / name), fix="remove it")
    for name in sorted(listed - found):
        raise ArtifactError("a listed file is missing", where=str(folder / name), fix="run: glovebox prepare again")


def _copy(source: Path, target: Path, statement: Statement) -> None:
    _same_files(source, statement)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for subject in statement.subject:
        size = statement.predicate.sizes[subject.name]
        _copy_file(source / subject.name, partial / subject.name, subject.digest.sha256, size)
    shutil.copyfile(source / manifest.NAME, partial / manifest.NAME)
    for folder in (partial, *(p for p in partial.iterdir() if p.is_dir())):
        folder.chmod(0o755)
    os.replace(partial, target)


def _copy_file(source: Path, target: Path, sha256: str, size: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, done = hashlib.sha256(), 0
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ArtifactError(
            f"cannot be opened: {error.strerror}", where=str(source), fix="run: glovebox prepare again"
        ) from None
    with os.fdopen(descriptor, "rb") as reader, target.open("wb") as writer:
        if not stat.S_ISREG(os.fstat(reader.fileno()).st_mode):
            raise ArtifactError("not a regular file", where=str(source), fix="run: glovebox prepare again")
        while done <= size and (chunk := reader.read(min(manifest.CHUNK, size + 1 - done))):
            digest.update(chunk)
            writer.write(chunk)
            done += len(chunk)
        os.fchmod(writer.fileno(), 0o444)
        os.fsync(writer.fileno())
    if done != size or digest.hexdigest() != sha256:
        raise ArtifactError("does not match the signed manifest", where=str(source), fix="run: glovebox prepare again")
