"""Parquet shards from a mirror: resumed, retried, in parallel. TRUSTED, run by a person at prepare time only.

A shard is complete when its size is the server's, its SHA-256 the server's (where it names one: the hub sends
it as X-Linked-ETag) and it can be opened as parquet. What arrived of an incomplete one is kept and continued.
"""

from __future__ import annotations

import ipaddress
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from runner.core.artifacts.patience import Again, asked, patiently
from runner.core.artifacts.progress import Advance, Stages
from runner.core.base import files
from runner.core.base.errors import ArtifactError
from runner.core.base.files import hash_file
from runner.core.data import shards
from runner.core.data.corpus import VAL_SHARD

WORKERS = 4
MAX_SHARD = 4 << 30  # bytes; upstream's have about 100 MB
TIMEOUT = httpx.Timeout(30.0, read=60.0)
_URL = re.compile(r"(https?)://([^\s@/:\[\]]{1,253}|\[[0-9a-f:]{2,39}\])(:\d{1,5})?(/[^\s@]{0,400})?")
_OWN = re.compile(r"[a-z][a-z0-9-]*(\.(local|lan|internal|home\.arpa))?")  # names that only one's own network has
_NO_HEAD = (405, 501)  # of a server that answers GET alone


def names(count: int) -> list[str]:
    """File names of the first `count` training shards and of the validation shard."""
    return [f"shard_{i:05d}.parquet" for i in range(count)] + [VAL_SHARD]


def fetch(folder: Path, count: int, base: str, stages: Stages) -> None:
    """Bring the shards into `folder`; raises ArtifactError when one cannot be had or the disk is too small."""
    if not _may_be_a_mirror(base):
        raise ArtifactError("not a mirror", where=base, fix="use https://, or http:// on this machine or network")
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names(count) if not (folder / name).exists()]
    if not missing:
        return
    # A compressed transfer has other lengths and ranges; a redirect may lead only where a mirror may be.
    headers, hooks = {"accept-encoding": "identity"}, {"request": [partial(_allowed, base)]}
    began = time.monotonic()
    with _client(headers=headers, event_hooks=hooks) as client:
        sizes = _sizes(client, base, missing, stages)
        _room(folder, sizes)
        stage = stages.stage(f"downloading {len(missing)} shards", sum(sizes.values()))
        with stage as advance, ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(lambda name: _shard(client, f"{base}/{name}", folder / name, advance, stages), missing))
    size = sum((folder / name).stat().st_size for name in missing)
    stages.say(f"downloaded {len(missing)} shards, {size >> 20} MiB, in {time.monotonic() - began:.0f} s")


def _client(**settings: Any) -> httpx.Client:
    """A client that goes through the proxy of HTTPS_PROXY, if one is set."""
    try:
        return httpx.Client(timeout=TIMEOUT, follow_redirects=True, **settings)
    except (ImportError, ValueError) as error:  # a SOCKS proxy, or an address that is none
        text = f"the proxy of HTTPS_PROXY or ALL_PROXY cannot be used: {str(error)[:120]}"
        raise ArtifactError(
            text, where="download", fix="name an http:// proxy in HTTPS_PROXY, and unset ALL_PROXY"
        ) from None


def _may_be_a_mirror(url: str) -> bool:
    """https anywhere; http on this machine, at a private address (RFC 1918, 4193), by a name of one's own network."""
    found = _URL.fullmatch(url)
    if found is None:
        return False
    host = found[2].strip("[]")
    if found[1] == "https" or _OWN.fullmatch(host):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or (address.is_private and not address.is_link_local and not address.is_unspecified)


def _sizes(client: httpx.Client, base: str, missing: list[str], stages: Stages) -> dict[str, int]:
    """What the server says before anything is fetched; 0 where it does not say."""

    def size(name: str) -> int:
        answer = patiently(lambda: _head(client, f"{base}/{name}"), stages.say)
        told = answer.headers.get("x-linked-size") or answer.headers.get("content-length") or ""
        known = answer.status_code not in _NO_HEAD and told.isascii() and told.isdecimal()
        return int(told) if known and not _encoded(answer) else 0

    with ThreadPoolExecutor(WORKERS) as pool:
        return dict(zip(missing, pool.map(size, missing), strict=True))


def _allowed(base: str, request: httpx.Request) -> None:
    """A redirect may lead to https anywhere, and without it only to where it came from."""
    url = request.url.copy_with(query=None, fragment=None)
    elsewhere = url.scheme != "https" and url.host != httpx.URL(base).host
    if request.url.username or elsewhere or not _may_be_a_mirror(str(url)):
        raise ArtifactError("a redirect to a place that may not be a mirror", where=request.url.host, fix="use another")


def _room(folder: Path, sizes: dict[str, int]) -> None:
    there = sum(path.stat().st_size for path in folder.glob("*.part"))
    needed = max(0, sum(sizes.values()) - there)
    state = os.statvfs(folder)
    free = state.f_bavail * state.f_frsize
    if free < needed:
        text = f"the download needs {needed >> 20} MiB, {free >> 20} are free"
        raise ArtifactError(text, where=str(folder), fix="free disk space, or pass a smaller --num-shards")


def _shard(client: httpx.Client, url: str, target: Path, advance: Advance, stages: Stages) -> None:
    partial = target.with_name(target.name + ".part")
    if partial.exists():
        advance(partial.stat().st_size)
    patiently(lambda: _continue(client, url, partial, advance), stages.say)
    files.publish(partial, target)
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
            resumed = answer.status_code == 206 and not _encoded(answer)
            if resumed and not answer.headers.get("content-range", "").startswith(f"bytes {have}-"):
                partial.unlink()
                raise Again("another part than was asked for")
            if have and not resumed:
                advance(-have)
            _remember(partial, answer)
            with partial.open("ab" if resumed else "wb") as file:
                for piece in answer.iter_bytes():
                    file.write(piece)
                    advance(len(piece))
                    if file.tell() > MAX_SHARD:
                        raise ArtifactError("larger than a shard", where=url, fix="check --mirror")
                file.flush()
                os.fsync(file.fileno())
            _finish(partial, answer)
    except httpx.RequestError as error:
        raise Again(f"{type(error).__name__} at {url}") from None


def _finish(partial: Path, answer: httpx.Response) -> None:
    """Raise Again unless the file is whole."""
    size = partial.stat().st_size if partial.exists() else 0
    total = answer.headers.get("content-range", "").rpartition("/")[2] or answer.headers.get("content-length", "")
    length = int(total) if total.isdecimal() and not _encoded(answer) else size
    if size < length:
        raise Again("the connection ended early")
    digest = next((e for r in (*answer.history, answer) if (e := r.headers.get("x-linked-etag", "").strip('"'))), "")
    wrong = "its length" if size > length else ""
    if re.fullmatch(r"[0-9a-f]{64}", digest) and hash_file(partial)[0] != digest:
        wrong = "its SHA-256"
    try:
        wrong = wrong or ("" if shards.describe(partial).documents > 0 else "no documents")
    except ArtifactError as error:
        wrong = error.what
    if wrong:
        partial.unlink(missing_ok=True)
        raise Again(f"what arrived is not the shard: {wrong}")


def _encoded(answer: httpx.Response) -> bool:
    """Whether a server compresses although it was asked not to: lengths and parts are of something else then."""
    return answer.headers.get("content-encoding", "identity").lower() not in ("", "identity")


def _tag(partial: Path) -> str:
    """The strong validator the beginning of the file came with."""
    path = partial.with_name(partial.name + ".etag")
    return path.read_text() if path.exists() else ""


def _remember(partial: Path, answer: httpx.Response) -> None:
    tag = answer.headers.get("etag", "")
    if tag and not tag.startswith("W/"):
        files.write(partial.with_name(partial.name + ".etag"), tag)


def _head(client: httpx.Client, url: str) -> httpx.Response:
    try:
        answer = client.head(url)
    except httpx.RequestError as error:
        raise Again(f"{type(error).__name__} at {url}") from None
    _refused(answer, url)
    return answer


def _refused(answer: httpx.Response, url: str) -> None:
    if answer.request.method == "HEAD" and answer.status_code in _NO_HEAD:
        return
    if answer.status_code == 429 or answer.status_code >= 500:
        raise Again(f"status {answer.status_code} at {url}", asked(answer.headers))
    if answer.status_code in (401, 403):
        fix = "a mirror that needs no login: --mirror; or fetch the shards yourself: --shards FOLDER"
        raise ArtifactError(f"status {answer.status_code}: the mirror wants a login", where=url, fix=fix)
    if answer.status_code >= 400:
        raise ArtifactError(f"status {answer.status_code}", where=url, fix="check --mirror, or pass --shards FOLDER")
