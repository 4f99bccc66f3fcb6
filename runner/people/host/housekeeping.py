"""`glovebox gc`: what a bench no longer needs. TRUSTED; what records point to is never touched.

Goes: quarantined logs and folders of runs that ended more than `days` ago, snapshots no row or rerun names, halves of
files a killed process left, store copies of expired artifacts no tag uses, containers of this bench if nothing runs,
and images of ours that lost their name. Stays: ledger, audit chain, git line, snapshots of every experiment, artifacts.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import docker

from runner.core.artifacts import keys, manifest
from runner.core.base import locks
from runner.core.base.errors import EngineError, GloveboxError
from runner.core.base.home import Home
from runner.core.evidence import audit_chain
from runner.core.evidence.ledger import Ledger
from runner.core.policy import policy_files
from runner.rooms.launcher import containers
from runner.rooms.launcher.engine import connect_engine

IMAGE_LABEL = "glovebox.image"  # of every image our Dockerfiles make
_PARTIAL = ("*.partial", "results.tsv?*", "report.html?*", "tmp*")
_YOUNG = 3600.0  # seconds; what is younger may be in use


class Found(NamedTuple):
    """One thing that can go."""

    what: str
    name: str
    size: int  # bytes; 0 where it is not known
    path: Path | None = None
    engine: str | None = None  # id of a container or an image


def tidy(home: Home, days: float, client: docker.DockerClient | None, *, remove: bool) -> tuple[list[Found], int]:
    """(What can go, bytes freed on the bench's disk); without a client containers and images are left out.

    Found and removed under one lock, so that nothing begins to need it in between. Raises BusyError while a run is on.
    """
    with locks.hold(home.runner_lock, "gc"):
        found = [*_runs(home, days), *_snapshots(home), *_halves(home), *_store(home)]
        found += list(_engine(home, client)) if client is not None else []
        return found, sum(_remove(one, client) for one in found) if remove else 0


def engine(home: Home) -> docker.DockerClient | None:
    """The engine, if one answers."""
    try:
        return connect_engine(policy_files.load(*home.policies).sandbox)
    except EngineError:
        return None


def _remove(one: Found, client: docker.DockerClient | None) -> int:
    if one.path is not None:
        shutil.rmtree(one.path) if one.path.is_dir() else one.path.unlink(missing_ok=True)
        return one.size
    with suppress(docker.errors.APIError):  # somebody else removed it, or uses it
        if client is not None and one.what == "container":
            client.containers.get(str(one.engine)).remove(force=True, v=True)
        elif client is not None:
            client.images.remove(str(one.engine))
    return 0


def _runs(home: Home, days: float) -> Iterator[Found]:
    before = time.time() - days * 86_400
    for path in sorted((home.root / "runs").glob("*")):
        if path.is_dir() and path.stat().st_mtime < before:
            yield Found("run", path.name, _size(path), path)


def _snapshots(home: Home) -> Iterator[Found]:
    if not home.ledger.exists():
        return
    book = Ledger(home.ledger, read_only=True)
    named = set()
    for tag in book.tags():
        named |= {row.snapshot for row in book.experiments(tag)} | {rerun.snapshot for rerun in book.reruns(tag)}
        named |= {rerun.snapshot for rerun in book.open_reruns(tag)}
        named |= {book.opened(tag, number).snapshot for number in book.open_numbers(tag)}
    book.close()
    accepted = audit_chain.by_name(audit_chain.read(home.audit), "accepted")
    named |= {str(data.get("snapshot")) for data in accepted.values()}
    for path in sorted(home.snapshots.glob("*.py")):
        if path.stem not in named and _old(path):
            yield Found("snapshot", path.name, path.stat().st_size, path)


def _halves(home: Home) -> Iterator[Found]:
    """What was being written when a process was killed."""
    for folder in (home.root, home.snapshots, home.keys, *sorted((home.root / "tags").glob("*"))):
        for pattern in _PARTIAL:
            for path in sorted(folder.glob(pattern)):
                if not path.is_symlink() and _old(path):
                    size = _size(path) if path.is_dir() else path.stat().st_size
                    yield Found("half a file", str(path.relative_to(home.root)), size, path)


def _store(home: Home) -> Iterator[Found]:
    """Copies of artifacts that expired and that no tag was begun with."""
    used = set()
    if home.ledger.exists():
        book = Ledger(home.ledger, read_only=True)
        used = {book.run_info(tag)["artifact"] for tag in book.tags()}
        book.close()
    for path in sorted(p for p in home.store.glob("[a-z0-9]*") if p.is_dir()):
        if path.name not in used and _expired(home, path):
            yield Found("expired artifact", path.name, _size(path), path)


def _expired(home: Home, path: Path) -> bool:
    try:
        manifest.read(path, keys.trust(home))
    except GloveboxError as error:
        return error.what.startswith("expired")
    return False


def _engine(home: Home, client: docker.DockerClient) -> Iterator[Found]:
    if not locks.held(home.launcher_lock):
        for container in containers.of_bench(client, home.id):
            yield Found("container", str(container.name), 0, engine=str(container.id))
    for image in client.images.list(filters={"dangling": True, "label": IMAGE_LABEL}):
        yield Found("image", str(image.short_id), int(image.attrs.get("Size") or 0), engine=str(image.id))


def _old(path: Path) -> bool:
    return datetime.now(UTC).timestamp() - path.stat().st_mtime > _YOUNG


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
