"""`glovebox prepare`: make a signed artifact from a corpus. TRUSTED, run by a person."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path

from runner import keys
from runner.artifacts import corpus, manifest, pack
from runner.artifacts.profiles import PROFILES, Profile
from runner.errors import ArtifactError, BusyError
from runner.home import Home


def prepare(home: Home, profile_name: str, shards: Path | None, say: pack.Say) -> str:
    """Build, sign and publish one artifact; returns its version."""
    profile = PROFILES[profile_name]
    if shards is None and profile_name != "demo":
        raise ArtifactError(f"profile {profile_name} needs parquet shards", fix="pass --shards FOLDER")
    with locked(home):
        return _prepare(home, profile, shards, say)


def _prepare(home: Home, profile: Profile, shards: Path | None, say: pack.Say) -> str:
    serial = _next_serial(home)
    version = f"{profile.name}-{serial}"
    target = home.artifacts / version
    partial = home.artifacts / f".{version}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    say("reading documents")
    source = corpus.demo() if shards is None else corpus.shards(shards)
    pack.build(source, profile, partial, say)
    say("hashing and signing")
    manifest.sign(
        partial,
        keys.signer(home),
        profile=asdict(profile),
        version=version,
        serial=serial,
        provenance={
            "source": source.source,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "rustbpe": installed("rustbpe"),
            "tiktoken": installed("tiktoken"),
        },
    )
    os.replace(partial, target)
    return version


@contextmanager
def locked(home: Home) -> Iterator[None]:
    """One preparation at a time per bench; raises BusyError."""
    home.artifacts.mkdir(parents=True, exist_ok=True)
    path = home.artifacts / ".lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError("another prepare is running", where=str(path), fix="wait for it") from None
        yield


def newest(home: Home, profile: str) -> str | None:
    """The newest finished version of a profile."""
    found = {int(n): p.name for p in home.artifacts.glob(f"{profile}-*") if (n := p.name.rsplit("-", 1)[-1]).isdigit()}
    return found[max(found)] if found else None


def _next_serial(home: Home) -> int:
    taken = [int(p.name.rsplit("-", 1)[-1]) for p in home.artifacts.glob("*-*") if p.name.rsplit("-", 1)[-1].isdigit()]
    return max(taken, default=0) + 1
