"""Parquet shards from a mirror: resumed, retried, in parallel. TRUSTED, run by a person at prepare time only.

A shard is complete when its size is the server's, its SHA-256 the server's (where it names one: the hub sends
it as X-Linked-ETag) and it can be opened as parquet. What arrived of an incomplete one is kept and continued.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, TypeVar

import httpx
import tenacity

from runner.core.artifacts import shards
from runner.core.artifacts.corpus import VAL_SHARD
from runner.core.artifacts.progress import Advance, Stages
from runner.core.base.errors import ArtifactError
from runner.core.base.files import hash_file

BASE_URL = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main"
MAX_SHARDS = 6542  # training shards 0..6541; the one after is the validation shard
WORKERS = 4
T = TypeVar("T")
ATTEMPTS = 6
MAX_SHARD = 4 << 30  # bytes; upstream's have about 100 MB
TIMEOUT = httpx.Timeout(30.0, read=60.0)
_URL = re.compile(r"https://[^\s@]{1,500}|http://(127\.0\.0\.1|localhost|[a-z][a-z0-9-]*)(:\d{1,5})?(/[^\s@]{0,400})?")


class _Again(Exception):
    """This attempt failed; the next one may not."""


def names(count: int) -> list[str]:
    """File names of the first `count` training shards and of the validation shard."""
    return [f"shard_{i:05d}.parquet" for i in range(count)] + [VAL_SHARD]


def fetch(folder: Path, count: int, base: str, stages: Stages) -> None:
    """Bring the shards into `folder`; raises ArtifactError when one cannot be had or the disk is too small."""
    if not _URL.fullmatch(base):
        raise ArtifactError("not a mirror", where=base, fix="use https://, or http:// on this machine or network")
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names(count) if not (folder / name).exists()]
    if not missing:
        return
    # A compressed transfer has other lengths and ranges; a redirect may lead only where a mirror may be.
    headers, hooks = {"accept-encoding": "identity"}, {"request": [_allowed]}
    with httpx.Client(timeout=TIMEOUT, follow_redirects=True, headers=headers, event_hooks=hooks) as client:
        sizes = _sizes(client, base, missing)
        _room(folder, sizes)
        stage = stages.stage(f"downloading {len(missing)} shards", sum(sizes.values()))
        with stage as advance, ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(lambda name: _shard(client, f"{base}/{name}", folder / name, advance), missing))


def _sizes(client: httpx.Client, base: str, missing: list[str]) -> dict[str, int]:
    """What the server says before anything is fetched; 0 where it does not say."""

    def size(name: str) -> int:
        answer = _patiently(lambda: _head(client, f"{base}/{name}"))
        told = answer.headers.get("x-linked-size") or answer.headers.get("content-length") or ""
        return int(told) if told.isascii() and told.isdecimal() else 0

    with ThreadPoolExecutor(WORKERS) as pool:
        return dict(zip(missing, pool.map(size, missing), strict=True))


def _allowed(request: httpx.Request) -> None:
    url = request.url.copy_with(query=None, fragment=None)
    if request.url.username or not _URL.fullmatch(str(url)):
        raise ArtifactError("a redirect to a place that may not be a mirror", where=request.url.host, fix="use another")


def _room(folder: Path, sizes: dict[str, int]) -> None:
    there = sum(path.stat().st_size for path in folder.glob("*.part"))
    needed = max(0, sum(sizes.values()) - there)
    state = os.statvfs(folder)
    free = state.f_bavail * state.f_frsize
    if free < needed:
        text = f"the download needs {needed >> 20} MiB, {free >> 20} are free"
        raise ArtifactError(text, where=str(folder), fix="free disk space, or pass a smaller --num-shards")


def _shard(client: httpx.Client, url: str, target: Path, advance: Advance) -> None:
    partial = target.with_name(target.name + ".part")
    if partial.exists():
        advance(partial.stat().st_size)
    _patiently(lambda: _continue(client, url, partial, advance))
    os.replace(partial, target)
    partial.with_name(partial.name + ".etag").unlink(missing_ok=True)


def _continue(client: httpx.Client, url: str, partial: Path, advance: Advance) -> None:
    """Fetch what is still missing of a file, then check all of it."""
    tag = _tag(partial)
    have = partial.stat().st_size if tag and partial.exists() else 0  # of which file it is, only the tag can say
    headers = {"range": f"bytes={have}-", "if-range": tag} if have else {}
    try:
        with client.stream("GET", url, headers=headers) as answer:
            if answer.status_code == 416:  # nothing is missing, or what we have is not of this file
                _finish(partial, answer)
                return
            _refused(answer, url)
            resumed = answer.status_code == 206
            if resumed and not answer.headers.get("content-range", "").startswith(f"bytes {have}-"):
                partial.unlink()
                raise _Again("another part than was asked for")
            if have and not resumed:
                advance(-have)
            _remember(partial, answer)
            with partial.open("ab" if resumed else "wb") as file:
                for piece in answer.iter_raw():
                    file.write(piece)
                    advance(len(piece))
                    if file.tell() > MAX_SHARD:
                        raise ArtifactError("larger than a shard", where=url, fix="check --mirror")
                file.flush()
                os.fsync(file.fileno())
            _finish(partial, answer)
    except httpx.RequestError as error:
        raise _Again(f"{type(error).__name__} at {url}") from None


def _finish(partial: Path, answer: httpx.Response) -> None:
    """Raise _Again unless the file is whole."""
    size = partial.stat().st_size if partial.exists() else 0
    total = answer.headers.get("content-range", "").rpartition("/")[2] or answer.headers.get("content-length", "")
    if total.isdigit() and size < int(total):
        raise _Again("the connection ended early")
    digest = next((e for r in (*answer.history, answer) if (e := r.headers.get("x-linked-etag", "").strip('"'))), "")
    whole = not (total.isdigit() and size > int(total)) and not (
        re.fullmatch(r"[0-9a-f]{64}", digest) and hash_file(partial)[0] != digest
    )
    try:
        whole = whole and shards.describe(partial).documents > 0
    except ArtifactError:
        whole = False
    if not whole:
        partial.unlink(missing_ok=True)
        raise _Again("what arrived is not the shard")


def _tag(partial: Path) -> str:
    """The strong validator the beginning of the file came with."""
    path = partial.with_name(partial.name + ".etag")
    return path.read_text() if path.exists() else ""


def _remember(partial: Path, answer: httpx.Response) -> None:
    tag = answer.headers.get("etag", "")
    if tag and not tag.startswith("W/"):
        partial.with_name(partial.name + ".etag").write_text(tag)


def _head(client: httpx.Client, url: str) -> httpx.Response:
    try:
        answer = client.head(url)
    except httpx.RequestError as error:
        raise _Again(f"{type(error).__name__} at {url}") from None
    _refused(answer, url)
    return answer


def _refused(answer: httpx.Response, url: str) -> None:
    if answer.status_code == 429 or answer.status_code >= 500:
        raise _Again(f"status {answer.status_code} at {url}")
    if answer.status_code >= 400:
        raise ArtifactError(f"status {answer.status_code}", where=url, fix="check --mirror, or pass --shards FOLDER")


def _patiently(action: Callable[[], T]) -> T:
    """`action`, tried again while it raises _Again; raises ArtifactError when patience ends."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_Again),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=30),
        retry_error_callback=_gave_up,
    )
    return retrying(action)


def _gave_up(state: tenacity.RetryCallState) -> NoReturn:
    error = state.outcome.exception() if state.outcome else None
    raise ArtifactError(
        f"gave up after {ATTEMPTS} attempts: {error}",
        where="download",
        fix="run it again: what arrived is kept; or pass --mirror URL or --shards FOLDER",
    )
