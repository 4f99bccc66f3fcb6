"""Kernel packages as a signed artifact: downloaded once, by a person, and mounted read-only. TRUSTED.

On disk as on the hub: kernels/NAME/build/VARIANT/..., and beside build/ a list of the GPUs that the package has code
for, from the policy. What a package does when it is loaded is its author's choice, in the trainer's container; that it
is the same bytes as when it was signed is ours. A package that cannot be had is left out, and torch's own attention
takes its place (trainer/attention.py).
"""

from __future__ import annotations

import fnmatch
import json
import platform
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated

from pydantic import Field, model_validator

from runner.core.artifacts import hub as hugging
from runner.core.artifacts import keys, manifest, store
from runner.core.artifacts.progress import Stages
from runner.core.base import files, locks
from runner.core.base.errors import ArtifactError
from runner.core.base.home import Home
from runner.core.base.strict_yaml import Strict, load_yaml
from runner.core.policy import walls

KIND = "kernels"
Repo = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}/[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")]
Variant = Annotated[str, Field(pattern=r"^torch[a-z0-9*_{}-]{0,60}$")]
Architecture = Annotated[str, Field(pattern=r"^\d{1,2}\.\da?$")]
ARCHITECTURES = "architectures.json"  # trainer/kernels_offline.py reads it
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAX_BYTES = 4 << 30  # of one package
_KINDS = ("kernel", "model")  # of hub repositories: newer packages have a type of their own (kernels 0.14)


class Package(Strict):
    """One kernel repository, its version, which of its builds are wanted, and the GPUs that they have code for.

    `{machine}` in a variant is this machine's, as in x86_64. No architectures: whatever the package says itself.
    """

    repo: Repo
    version: Annotated[int, Field(ge=0, le=10_000)]
    variants: Annotated[list[Variant], Field(min_length=1, max_length=20)]
    architectures: Annotated[list[Architecture], Field(max_length=40, default_factory=list)]

    @property
    def name(self) -> str:
        """Folder name: the last part of the repository's."""
        return self.repo.rsplit("/", 1)[-1]


class Kernels(Strict):
    """policies/kernels.yaml."""

    packages: Annotated[list[Package], Field(max_length=50)]

    @model_validator(mode="after")
    def _apart(self) -> Kernels:
        if len({package.name for package in self.packages}) != len(self.packages):
            raise ValueError("two packages would share a folder")
        return self


def provision(home: Home, source: Path | None, stages: Stages) -> str:
    """Fetch (or copy from `source`) every package of the policy, sign them, publish; returns the version."""
    path = walls.place(home.policies, "kernels.yaml")
    packages = load_yaml(path, Kernels).packages
    home.artifacts.mkdir(parents=True, exist_ok=True)
    with locks.hold(home.artifacts / ".lock", "another prepare"):
        signers = keys.signers(home)
        version = f"{KIND}-{store.next_serial(home)}"
        work = home.artifacts / f".work-{KIND}"
        shutil.rmtree(work, ignore_errors=True)
        provenance = {"python": platform.python_version()}
        for package in packages:
            stages.say(f"kernel package {package.repo}, version {package.version}")
            folder = work / KIND / package.name
            commit, why = (
                (_copy(source, package, folder), "no such build") if source else _download(package, folder, stages.say)
            )
            if commit is None:
                stages.say(f"{package.repo} is left out: {why}")
                continue
            provenance[package.repo] = commit
            if package.architectures:
                files.write(folder / ARCHITECTURES, json.dumps(package.architectures))
        if not any(work.rglob("*.py")):
            fix = "check the network and kernels.yaml, or pass --kernels-from FOLDER"
            raise ArtifactError("no kernel package was found", where=str(source or path), fix=fix)
        manifest.sign(
            work,
            signers,
            profile={"name": KIND},
            version=version,
            serial=store.serial_of(version),
            provenance=provenance,
            made=datetime.now(UTC),
        )
        files.publish(work, home.artifacts / version)
    return version


def _copy(source: Path, package: Package, target: Path) -> str | None:
    """The wanted builds of a local copy of the repository; None if there is none."""
    builds = source / package.name / "build"
    wanted = [path for path in sorted(builds.glob("*")) if _wanted(path.name, package)]
    for path in wanted:
        if path.is_symlink() or builds.is_symlink() or builds.parent.is_symlink():
            raise ArtifactError("not a regular file", where=str(path), fix="copy the package itself, not a link to it")
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        try:
            shutil.copytree(path, target / "build" / path.name, symlinks=True, ignore=ignored)
        except (shutil.Error, OSError) as error:
            fix = "check the folder for pipes, sockets and unreadable files"
            raise ArtifactError(f"cannot be copied: {type(error).__name__}", where=str(path), fix=fix) from None
    return "local copy" if wanted else None


def _download(package: Package, target: Path, say: Callable[[str], None]) -> tuple[str | None, str]:
    """(commit that was fetched, "") from the hub; or (None, why it was not). Raises ArtifactError without a client."""
    what = "downloading kernels needs the kernels package"
    hub = hugging.client(what, package.repo, "pass --kernels-from FOLDER")
    why = ""
    for kind in _KINDS:
        try:
            commit, found = hugging.patient(hub, partial(_fetch, hub, package, kind), say)
            if sum(path.stat().st_size for path in found.rglob("*") if path.is_file()) > _MAX_BYTES:
                raise ValueError("too large")
            for build in sorted((found / "build").glob("*")):  # the hub's cache holds links; a copy holds files
                if _wanted(build.name, package):
                    shutil.copytree(build, target / "build" / build.name)
        except Exception as error:  # noqa: BLE001 - the hub's client raises its own, its transport's and the system's
            why = why or (error.what if isinstance(error, ArtifactError) else f"{type(error).__name__} from the hub")
            shutil.rmtree(target, ignore_errors=True)  # half a package is none
            continue
        if target.is_dir():
            return commit, ""
        why = f"version {package.version} has no build that kernels.yaml names"
    return None, why


def _fetch(hub: ModuleType, package: Package, kind: str) -> tuple[str, Path]:
    """(commit, folder in the hub's own cache)."""
    commit = str(hub.HfApi().repo_info(package.repo, revision=f"v{package.version}", repo_type=kind).sha)
    if not _COMMIT.fullmatch(commit):
        raise ValueError("no commit")
    patterns = [f"build/{_named(variant)}/*" for variant in package.variants]
    return commit, Path(hub.snapshot_download(package.repo, revision=commit, repo_type=kind, allow_patterns=patterns))


def _wanted(variant: str, package: Package) -> bool:
    return any(fnmatch.fnmatchcase(variant, _named(pattern)) for pattern in package.variants)


def _named(pattern: str) -> str:
    return pattern.replace("{machine}", platform.machine())
