"""`glovebox prepare`: make a signed artifact from a corpus. TRUSTED, run by a person."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path

from runner import keys
from runner.artifacts import corpus, manifest, pack
from runner.artifacts.profiles import PROFILES
from runner.errors import ArtifactError
from runner.home import Home


def prepare(home: Home, profile_name: str, shards: Path | None, say: pack.Say) -> str:
    """Build, sign and publish one artifact; returns its version."""
    profile = PROFILES[profile_name]
    if shards is None and profile_name != "demo":
        raise ArtifactError(f"profile {profile_name} needs parquet shards", fix="pass --shards FOLDER")
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


def _next_serial(home: Home) -> int:
    taken = [int(p.name.rsplit("-", 1)[-1]) for p in home.artifacts.glob("*-*") if p.name.rsplit("-", 1)[-1].isdigit()]
    return max(taken, default=0) + 1
