"""`glovebox prepare`: make a signed artifact from a corpus. TRUSTED, run by a person.

Work goes on in artifacts/.work-PROFILE/ under a plan that is written first. A preparation that was killed, at
any point, is continued by the next one with the same plan and ends in the same bytes: every file appears whole
or not at all, and the time that is signed is the plan's (or SOURCE_DATE_EPOCH). The finished folder is renamed
into place, so a half-made artifact is never seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from runner.core.artifacts import keys, manifest, store
from runner.core.artifacts.profiles import DATA_URL, Profile
from runner.core.artifacts.progress import Stages
from runner.core.base import files, locks
from runner.core.base.errors import ArtifactError
from runner.core.base.home import Home
from runner.core.data import corpus, download, overlap, own_data, pack, upstream_cache
from runner.core.data.corpus import Corpus
from runner.core.data.shard_reader import COLUMN

TOOLS = ("rustbpe", "tiktoken", "pyarrow", "numpy")
_MOST_WORDS = 1000  # characters of a licence, of an origin
_PER_TEXT_BYTE = 1.3  # bytes of working files and of the store's copy per byte of text, and some air


@dataclass(frozen=True)
class Source:
    """Where the documents come from; at most one of the three is set, none downloads (or is the demo)."""

    data: tuple[own_data.Data, ...] = ()  # files and folders of documents
    column: str = COLUMN  # their text's, where they have columns
    license: str = ""  # in whoever prepares it's words; signed
    origin: str = ""  # likewise
    shards: Path | None = None  # a folder of parquet files
    upstream_cache: Path | None = None  # karpathy/autoresearch's own cache
    mirror: str = DATA_URL
    count: int = 10  # training shards to download, upstream's default


def prepare(
    home: Home,
    profile: Profile,
    source: Source | None = None,
    stages: Stages | None = None,
    *,
    seconds: int | None = None,
) -> str:
    """Build, sign and publish one artifact, or continue one that was interrupted; returns its version.

    `seconds`: of training in an experiment, None: the profile's.
    """
    stages = stages or Stages()
    profile = profile if seconds is None else replace(profile, time_budget_s=seconds)
    home.artifacts.mkdir(parents=True, exist_ok=True)
    with locks.hold(home.artifacts / ".lock", "another prepare"):
        try:
            return _prepare(home, profile, source or Source(), stages)
        finally:
            shutil.rmtree(_heaps(home), ignore_errors=True)


def _prepare(home: Home, profile: Profile, source: Source, stages: Stages) -> str:
    signers = keys.signers(home)  # before the work, not after it
    for name, words in (("--license", source.license), ("--origin", source.origin)):
        if len(words) > _MOST_WORDS or words != words.encode("utf-8", "replace").decode():
            raise ArtifactError(f"more than {_MOST_WORDS} characters, or not UTF-8", where=name, fix="say it shorter")
    documents, ranks = _documents(home, profile, source, stages)
    if profile.holdout_tokens:
        documents = corpus.held_back(documents)
    if not source.data and (profile.name != "demo" or source.shards or source.upstream_cache):
        documents = overlap.check(documents, profile, stages)
    _room(home, documents, stages)
    work = home.artifacts / f".work-{profile.name}"
    plan = _plan(home, work, profile, documents, source, ranks)
    folder = work / "files"
    if (home.artifacts / plan["version"]).exists():  # killed after it was published
        shutil.rmtree(work)
        return str(plan["version"])
    files.sweep(work)
    pack.build(documents, profile, folder, stages, ranks)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    with stages.stage("hashing and signing", size) as advance:
        manifest.sign(
            folder,
            signers,
            profile=asdict(profile),
            version=plan["version"],
            serial=store.serial_of(plan["version"]),
            provenance=plan["provenance"],
            made=datetime.fromtimestamp(plan["made"], UTC),
            advance=advance,
        )
    files.publish(folder, home.artifacts / plan["version"])
    shutil.rmtree(work)
    return str(plan["version"])


def _heaps(home: Home) -> Path:
    """Where people's own documents lie while an artifact is made of them."""
    return home.artifacts / ".work-data"


def _documents(home: Home, profile: Profile, source: Source, stages: Stages) -> tuple[Corpus, pack.Ranks | None]:
    """The corpus, and a tokenizer if the source has one."""
    stages.say("reading documents")
    if source.upstream_cache is not None:
        folder = source.upstream_cache
        return corpus.shards(folder / "data", "upstream's cache"), upstream_cache.ranks(folder, profile)
    if source.data:
        return own_data.corpus(source.data, profile, source.column, _heaps(home), stages), None
    if source.shards is not None:
        return corpus.shards(source.shards, column=source.column), None
    if profile.name == "demo":
        return corpus.demo(keys.secret(home, "demo validation")), None
    if profile.holdout_tokens and source.count < 2:
        what = f"profile {profile.name} holds a shard back for confirm, and one is asked for"
        raise ArtifactError(what, where="--num-shards", fix="2 or more, or holdout_tokens: 0 in the profile")
    folder = home.root / "shards"
    download.fetch(folder, source.count, source.mirror, stages)
    wanted = set(download.names(source.count))
    found = corpus.shards(folder, source.mirror)
    kept = [shard for shard in found.train if shard.name in wanted]
    return replace(found, train=kept), None


def _room(home: Home, documents: Corpus, stages: Stages) -> None:
    """Say what the disk will hold, and refuse before the work begins what it cannot."""
    needed = int(_PER_TEXT_BYTE * documents.text_bytes)
    free = shutil.disk_usage(home.artifacts).free
    if free < needed:
        text = (
            f"about {needed >> 20} MiB are needed for {documents.text_bytes >> 20} MiB of text, {free >> 20} are free"
        )
        raise ArtifactError(text, where=str(home.artifacts), fix="free disk space, or use fewer shards")
    stages.say(f"{documents.text_bytes >> 20} MiB of text: about {needed >> 20} MiB of disk, {free >> 20} MiB are free")


def _plan(
    home: Home, work: Path, profile: Profile, documents: Corpus, source: Source, ranks: pack.Ranks | None
) -> dict[str, Any]:
    """What is being made; the one on disk if it is the same, else a new one from scratch."""
    held = [documents.holdout] if documents.holdout is not None and profile.holdout_rows else []
    shards = [[shard.name, shard.sha256] for shard in (*documents.train, documents.val, *held)]
    own = {name: text for name, text in (("license", source.license), ("origin", source.origin)) if text}
    tokenizer = "rustbpe" if ranks is None else f"upstream's cache, {_sha256(sorted(ranks.items()))}"
    wanted = {
        "profile": asdict(profile),
        "shards": shards,
        "provenance": {"source": documents.source, "tokenizer": tokenizer, "python": platform.python_version()}
        | {"shards_sha256": _sha256(shards), "validation_sha256": documents.val.sha256}
        | ({"holdout_sha256": held[0].sha256} if held else {})
        | documents.told
        | own
        | {name: installed(name) for name in TOOLS},
    }
    path = work / "plan.json"
    there = json.loads(path.read_bytes()) if path.exists() else {}
    if {name: there.get(name) for name in wanted} == wanted:
        return dict(there)
    shutil.rmtree(work, ignore_errors=True)
    made = int(os.environ.get("SOURCE_DATE_EPOCH") or datetime.now(UTC).timestamp())
    plan = {**wanted, "version": f"{profile.name}-{store.next_serial(home)}", "made": made}
    files.write(path, json.dumps(plan))
    return plan


def _sha256(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()
