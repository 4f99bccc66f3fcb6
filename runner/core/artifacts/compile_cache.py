"""Compiled code of the baseline as a signed artifact: what torch.compile need not do again. TRUSTED.

`make` runs the seed, or a train.py that a person names and vouches for, in a trainer of its own, and signs what it
compiled, together with the image and the device it was compiled for. The desk admits it and says both to the launcher,
which refuses it for any other. Trainers get it read-only and copy it into their own /cache, which dies with them: no
candidate writes what another one loads.
An archive of an agent's file could smuggle trained weights into later runs, so an imported seed is not taken unasked.
The archive is never opened on the host. What in it fits is decided by torch's own keys (source, versions, device).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from runner.core.airlock import snapshot
from runner.core.artifacts import keys, manifest, store
from runner.core.base import device, files, locks, nvidia
from runner.core.base.errors import ArtifactError, GloveboxError
from runner.core.base.home import Home
from runner.core.base.launching import Cache, EndReason, EngineResult, LaunchRequest, Release
from runner.core.base.mountable import COMPILED_FILE

_MAX_SECONDS = 86_400.0
Train = Callable[[LaunchRequest, Release], EngineResult]


def source(home: Home, given: Path | None) -> bytes:
    """The train.py to compile; raises ArtifactError if an agent wrote it and nobody vouched for it."""
    if given is None and home.first() == home.seed:
        raise ArtifactError(
            "tags of this bench begin with an imported train.py, which an agent wrote",
            where=str(home.seed),
            fix=f"read it, and if you trust it: glovebox warm --train-py {home.seed}",
        )
    try:
        return (given or home.first()).read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot be read: {error.strerror}", where=str(given), fix="check the path") from None


def make(home: Home, text: bytes, train: Train, request: LaunchRequest, seconds: float, budget: int) -> str:
    """Train `text` for `budget` seconds and publish what it compiled; returns the version.

    `train` runs a container for `request`, which may live for `seconds`.
    """
    taken = snapshot.keep(text, home.snapshots)
    home.artifacts.mkdir(parents=True, exist_ok=True)
    with locks.hold(home.artifacts / ".lock", "another prepare"):
        signers = keys.signers(home)
        engine = train(request, Release(seconds=seconds, snapshot=taken.sha256, budget=budget))
        folder, version = home.run(request.run), f"{store.CACHE}-{store.next_serial(home)}"
        kept = folder / "cache.tar"
        if engine.reason is not EndReason.EXIT or engine.exit_code or not kept.stat().st_size:
            told = engine.reason if engine.reason is not EndReason.EXIT else f"exit code {engine.exit_code}"
            raise GloveboxError(
                f"the baseline did not run to its end: {told}", where=str(folder / "trainer.log"), fix="read that log"
            )
        work = home.artifacts / f".work-{store.CACHE}"
        shutil.rmtree(work, ignore_errors=True)
        (work / COMPILED_FILE).parent.mkdir(parents=True)
        shutil.move(kept, work / COMPILED_FILE)
        manifest.sign(
            work,
            signers,
            profile={"name": store.CACHE},
            version=version,
            serial=store.serial_of(version),
            provenance={
                "image": engine.image,
                "device": device.kind(nvidia.model(request.lane.gpu) if request.lane.gpu else None),
                "train_py": taken.sha256,
                "cold_seconds": f"{max(0.0, engine.seconds - budget):.1f}",
            },
            made=datetime.now(UTC),
        )
        files.publish(work, home.artifacts / version)
    shutil.rmtree(folder, ignore_errors=True)
    return version


def admit(home: Home, version: str) -> Cache:
    """A compile cache that may be used, and what its signed manifest says it was made for; raises ArtifactError."""
    made = store.admit(home, version).predicate.provenance
    cold = made.get("cold_seconds")  # absent from caches older than this
    return Cache(
        version=version,
        image=made.get("image", ""),  # nothing: fits nothing
        device=made.get("device", ""),
        cold_seconds=None if cold is None else _seconds(cold, version),
    )


def check_fit(cache: Cache, image: str, gpu: str | None) -> None:
    """Raises ArtifactError unless it was made for this image and device; `gpu`: the kind that was lent, if any."""
    for what, made, found in (("image", cache.image, image), ("device", cache.device, device.kind(gpu))):
        if made != found:
            raise ArtifactError(
                f"compile cache {cache.version} was made for {what} {made[:40]}, this is {found[:40]}",
                where="store",
                fix="run: glovebox warm, and begin a new --tag; or without one: glovebox warm --forget",
            )


def _seconds(text: str, version: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _MAX_SECONDS:
        raise ArtifactError("cold_seconds is no time", where=version, fix="run: glovebox warm")
    return seconds


def forget(home: Home) -> list[str]:
    """Remove every compile cache of a bench; returns their versions. Raises BusyError while a run is on."""
    with locks.hold(home.runner_lock, "warm --forget"):
        gone = store.caches(home)
        for version in gone:
            for folder in (home.artifacts, home.store):
                shutil.rmtree(folder / version, ignore_errors=True)
    return gone
