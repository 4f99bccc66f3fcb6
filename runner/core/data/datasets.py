"""Datasets of Hugging Face's hub, as files in the bench: fetched once, offline from then on. TRUSTED."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from runner.core.artifacts import hub as hugging
from runner.core.artifacts.progress import Stages
from runner.core.base import files
from runner.core.base.errors import ArtifactError
from runner.core.base.files import read_plain
from runner.core.base.home import Home

PREFIX = "hf:"
_NAME = re.compile(r"hf:([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([\w./-]{1,100}))?")
_WANTED = ["*.parquet", "*.jsonl", "*.jsonl.gz", "*.jsonl.zst", "*.txt", "*.txt.gz", "*.txt.zst"]
_WHOLE = ".whole"  # what a finished download is of


def fetch(home: Home, name: str, stages: Stages, hub_at: str | None = None) -> tuple[Path, str]:
    """(folder, "hf:OWNER/NAME@COMMIT") of what `hf:OWNER/NAME[@REVISION]` names; raises ArtifactError."""
    found = _NAME.fullmatch(name)
    if found is None or ".." in name:
        raise ArtifactError(f"{name!r} names no dataset", where="--data", fix="hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    repo, revision = found.group(1), found.group(2) or "main"
    folder = home.root / "datasets" / f"{repo.replace('/', '--')}@{revision.replace('/', '--')}"
    if (folder / _WHOLE).is_file():
        stages.say(f"{repo} is here already: {folder}")
        return folder, _told(folder)
    hub = hugging.client("huggingface_hub is not installed", "--data", "download it, and --data FOLDER")

    def download() -> str:
        commit = str(hub.HfApi(endpoint=hub_at).dataset_info(repo, revision=revision).sha)
        hub.snapshot_download(
            repo, repo_type="dataset", revision=commit, local_dir=folder, endpoint=hub_at, allow_patterns=_WANTED
        )
        return commit

    with stages.stage(f"downloading {repo}", 1) as advance:
        try:
            commit = hugging.patient(hub, download, stages.say)
        except Exception as error:  # noqa: BLE001 - the hub's client raises what its transport does
            why = " ".join(str(error).split())[:200] or type(error).__name__
            fix = "see whether it is there and open to you; or download it, and --data FOLDER"
            raise ArtifactError(f"not to be had: {why}", where=name, fix=fix) from None
        advance(1)
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    files.write(folder / _WHOLE, f"{repo}@{commit}\n")
    return folder, _told(folder)


def _told(folder: Path) -> str:
    return PREFIX + read_plain(folder / _WHOLE, 1000).decode().strip()
