"""The runner's own verified copy of an artifact. TRUSTED; the source folder may belong to anyone.

An artifact is copied while it is hashed, into a folder only the runner can write, and appears there under
its final name only when every file matched. Containers mount the copy, so whatever happens to the source later
changes nothing: its owner is not asked again.

Before every run the copy is checked without reading it through: signatures, expiry and serial once more, the
list of files, and of each file what the kernel noted when it was hashed (inode, size, modification and change
time). The change time cannot be set, so a file whose note still fits has not been written since; one whose
note differs is hashed again. Somebody who can write the store itself, or set the host's clock back, is root or
the runner's own user and outside what this can defend against.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from runner.core.artifacts import keys, manifest
from runner.core.artifacts.manifest import Statement, Subject
from runner.core.artifacts.parallel import in_parallel
from runner.core.base import locks
from runner.core.base.errors import ArtifactError
from runner.core.base.files import CHUNK, hash_file, open_plain, publish, read_plain, whole, write
from runner.core.base.home import Home
from runner.core.base.launching import Version
from trainer.wire import strict_json

_MAX_NOTES = 64 << 20  # bytes, of ten thousands of files
HIGHEST = "highest.json"  # in the store: the highest serial ever admitted, of data and of kernels
DATA, KERNELS, CACHE = "data", "kernels", "cache"
_TICK_SECONDS = 0.02  # more than a kernel's clock tick


def latest_kernels(home: Home) -> str | None:
    """Version of the newest kernel packages, None if none were ever used; raises ArtifactError on a rollback."""
    there = _versions(home, KERNELS)
    return latest(home, KERNELS) if there or highest(home).get(KERNELS) else None


def kernels_here(home: Home) -> str | None:
    """The newest version that is here, for who only looks: whether it is too old is asked when it is used."""
    found = _versions(home, KERNELS)
    return found[max(found)] if found else None


def caches(home: Home) -> list[str]:
    """Versions of compile caches, newest first. An older one is no danger: what does not fit is not used."""
    return [version for _, version in sorted(_versions(home, CACHE).items(), reverse=True)]


def latest(home: Home, kind: str = DATA) -> str:
    """Version of the newest artifact; raises ArtifactError when there is none.

    A serial below one that was admitted before is a rollback: somebody took the newer artifact away.
    """
    found, before = _versions(home, kind), highest(home).get(kind, 0)
    if not found and not before:
        raise ArtifactError("no artifacts", where=str(home.artifacts), fix="run: glovebox prepare --profile demo")
    if max(found, default=0) < before:
        raise ArtifactError(
            f"rollback: {kind} of serial {before} were used before, what is here is older",
            where=str(home.artifacts),
            fix="restore the newer artifact, or prepare again",
        )
    return found[max(found)]


def newest(home: Home, profile: str) -> str | None:
    """The newest version of a profile that would be accepted."""
    found = {serial_of(path.name): path for path in home.artifacts.glob(f"{profile}-*")}
    for _, path in sorted(found.items(), reverse=True):
        with contextlib.suppress(ArtifactError):
            return manifest.read(path, keys.trust(home)).predicate.version
    return None


def _versions(home: Home, kind: str) -> dict[int, str]:
    """Finished versions of a kind by serial."""
    return {
        serial_of(path.name): path.name
        for path in (*home.artifacts.glob("[a-z0-9]*-*"), *home.store.glob("[a-z0-9]*-*"))
        if _kind(path.name) == kind and (path / manifest.NAME).is_file()
    }


def serial_of(version: str) -> int:
    """The number at the end of a version."""
    number = version.rsplit("-", 1)[-1]
    return int(number) if number.isascii() and number.isdecimal() else 0


def _kind(version: str) -> str:
    name = version.rsplit("-", 1)[0]
    return name if name in (KERNELS, CACHE) else DATA


def shown(home: Home, version: str) -> Statement:
    """An artifact's statement for people to look at: signed, whatever its age and whether or not its files are whole.

    Takes no lock and writes nothing. Raises ArtifactError.
    """
    folder = _folder(home, version)
    if not folder.is_dir():
        profile = version.rsplit("-", 1)[0]
        fix = f"prepare it again: glovebox prepare --profile {profile}; or restore a backup made with --artifacts"
        raise ArtifactError("is not here", where=f"artifact {version}", fix=fix)
    return manifest.verified(folder, keys.trust(home), datetime.fromtimestamp(0, UTC))[0]


def looked_at(home: Home, version: str) -> tuple[Path, Statement]:
    """An artifact for people to look into: its folder, every file held against its hash; whatever its age.

    Takes no lock and writes nothing. Raises ArtifactError.
    """
    try:
        TypeAdapter(Version).validate_python(version)
    except ValidationError:
        raise ArtifactError("no name of an artifact", where=version[:80], fix="as prepare printed it") from None
    statement, folder = shown(home, version), _folder(home, version)
    same_files(folder, statement)
    other = _other(folder, statement.subject)
    if other is not None:
        where = str(folder / other.name)
        raise ArtifactError("not the file that was signed", where=where, fix="run: glovebox prepare again")
    return folder, statement


def newest_of_any_age(home: Home) -> str:
    """The newest artifact of text, expired or not; raises ArtifactError when there is none."""
    found = _versions(home, DATA)
    return found[max(found)] if found else latest(home)


def admit(home: Home, version: str) -> Statement:
    """Verify an artifact into the store, or re-check the copy already there; returns its statement."""
    home.store.mkdir(parents=True, exist_ok=True)
    with locks.hold(home.store / ".lock", "another check of artifacts", patience=900.0):
        return _admit(home, version)


def _admit(home: Home, version: str) -> Statement:
    target, source = home.store / version, _folder(home, version)
    statement, data = manifest.verified(source, keys.trust(home))
    if statement.predicate.version != version or statement.predicate.serial != serial_of(version):
        raise ArtifactError(
            f"the manifest is for {statement.predicate.version}, serial {statement.predicate.serial}",
            where=str(source),
            fix="do not rename artifact folders",
        )
    if source == target:
        _check_copy(home, target, statement)
    else:
        _copy(source, target, statement, data)
        _note(home, target, statement)
    _remember(home, version)
    return statement


def _check_copy(home: Home, target: Path, statement: Statement) -> None:
    same_files(target, statement)
    noted = _read_json(_notes(home, target.name))
    changed = [s for s in statement.subject if noted.get(s.name) != _stamp(target, s)]
    if not changed:
        return
    other = _other(target, changed)
    if other is not None:
        where = str(target / other.name)
        raise ArtifactError("changed in the store", where=where, fix=f"remove {target} and run again")
    _note(home, target, statement)


def _folder(home: Home, version: str) -> Path:
    """Where an artifact is: the store's copy if there is one."""
    there = home.store / version
    return there if there.is_dir() else home.artifacts / version


def _other(folder: Path, subjects: Sequence[Subject]) -> Subject | None:
    """The first of these files that is not what was signed."""
    hashed = in_parallel(lambda subject: hash_file(folder / subject.name)[0], subjects)
    found = zip(subjects, hashed, strict=True)
    return next((subject for subject, digest in found if digest != subject.digest.sha256), None)


def same_files(folder: Path, statement: Statement) -> None:
    """Raises ArtifactError unless `folder` holds exactly the files of the statement."""
    listed = {subject.name for subject in statement.subject}
    found = set(manifest.list_files(folder))
    for name in sorted(found - listed):
        raise ArtifactError("a file the manifest does not list", where=str(folder / name), fix="remove it")
    for name in sorted(listed - found):
        raise ArtifactError("a listed file is missing", where=str(folder / name), fix="run: glovebox prepare again")


def _copy(source: Path, target: Path, statement: Statement, data: bytes) -> None:
    same_files(source, statement)
    sizes = statement.predicate.sizes
    target.parent.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(target.parent).free, sum(sizes.values())
    if free < needed:
        raise ArtifactError(
            f"{needed >> 20} MiB are needed, {free >> 20} are free", where=str(target.parent), fix="free disk space"
        )
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)

    def copy(subject: Subject) -> None:
        _copy_file(source / subject.name, partial / subject.name, subject.digest.sha256, sizes[subject.name])

    in_parallel(copy, sorted(statement.subject, key=lambda subject: -sizes[subject.name]))
    write(partial / manifest.NAME, data)  # what was verified, whatever the source says by now
    for folder in (partial, *(p for p in partial.rglob("*") if p.is_dir())):
        folder.chmod(0o755)
    publish(partial, target)


def _copy_file(source: Path, target: Path, sha256: str, size: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, done = hashlib.sha256(), 0
    try:
        reader = open_plain(source)
    except OSError as error:
        raise ArtifactError(
            f"cannot be opened: {error.strerror}", where=str(source), fix="run: glovebox prepare again"
        ) from None
    with reader, target.open("wb") as writer:
        while done <= size and (chunk := reader.read(min(CHUNK, size + 1 - done))):
            digest.update(chunk)
            writer.write(chunk)
            done += len(chunk)
        writer.flush()
        os.fchmod(writer.fileno(), 0o444)
        os.fsync(writer.fileno())
    if done > size:
        raise ArtifactError(
            "larger than the signed manifest says", where=str(source), fix="run: glovebox prepare again"
        )
    if done != size or digest.hexdigest() != sha256:
        raise ArtifactError("does not match the signed manifest", where=str(source), fix="run: glovebox prepare again")


def _stamp(folder: Path, subject: Subject) -> list[int | str]:
    """What a file was when it had this hash."""
    state = (folder / subject.name).lstat()
    return [state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns, subject.digest.sha256]


def _notes(home: Home, version: str) -> Path:
    return home.store / f".{version}.notes.json"


def _note(home: Home, target: Path, statement: Statement) -> None:
    stamps = {subject.name: _stamp(target, subject) for subject in statement.subject}
    time.sleep(_TICK_SECONDS)  # a later change would have the same ctime on a kernel with a coarse clock (racy git)
    with whole(_notes(home, target.name)) as file:
        file.write(json.dumps(stamps).encode())


def highest(home: Home) -> dict[str, int]:
    """The highest serial ever admitted, by kind; raises ArtifactError for a note that cannot be read.

    Without it an older artifact in a newer one's place would be taken, so it is not passed over.
    """
    path = home.store / HIGHEST
    try:
        found = strict_json.loads(read_plain(path, _MAX_NOTES), max_bytes=_MAX_NOTES)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        found = error
    if isinstance(found, dict) and found and all(type(serial) is int for serial in found.values()):
        return found
    fix = f"restore it from a backup; or, sure that no newer artifact was taken away: rm {path}"
    if isinstance(found, OSError):
        fix = f"look why ({found.strerror}): ls -l {path}"
    raise ArtifactError("cannot be read: it says which artifacts are too old", where=str(path), fix=fix)


def next_serial(home: Home) -> int:
    """One more than any artifact there is, was used or is planned, and what the trust root asks for."""
    there = [serial_of(path.name) for path in (*home.artifacts.glob("*-*"), *home.store.glob("*-*"))]
    planned = [json.loads(path.read_bytes())["version"] for path in home.artifacts.glob(".work-*/plan.json")]
    there += [serial_of(version) for version in planned]
    return max([*there, *highest(home).values(), keys.trust(home).minimum_serial - 1, 0]) + 1


def _remember(home: Home, version: str) -> None:
    found = highest(home)
    if serial_of(version) > found.get(_kind(version), 0):
        with whole(home.store / HIGHEST) as file:
            file.write(json.dumps(found | {_kind(version): serial_of(version)}).encode())


def _read_json(path: Path) -> dict[str, object]:  # our own file; anything odd about it means: look again
    try:
        found = strict_json.loads(read_plain(path, _MAX_NOTES), max_bytes=_MAX_NOTES)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
