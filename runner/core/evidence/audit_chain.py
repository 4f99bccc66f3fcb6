"""audit.jsonl: an append-only hash chain of what the runner did. TRUSTED.

Every line is a JSON object {"n", "time", "kind", "data", "prev", "hash"}; hash is SHA-256 over the line
without it, in canonical form, so an edited, dropped or reordered line breaks the chain from there on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runner.core.base import files
from runner.core.base.errors import GloveboxError, VerifyError

GENESIS = "0" * 64
MAX_LINE = 1 << 20


def canonical(value: dict[str, Any]) -> bytes:
    """The bytes that are hashed: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


class AuditLog:
    """One writer appends; a torn last line, left by a crash, is cut off when the log is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._drop_torn_tail()
        self._number, self._prev, self.last_kind = 0, GENESIS, ""
        for entry in read(path):
            self._number, self._prev, self.last_kind = entry["n"] + 1, entry["hash"], entry["kind"]

    @property
    def last(self) -> tuple[int, str]:
        """Number and hash of the newest entry; (-1, GENESIS) of an empty chain."""
        return self._number - 1, self._prev

    def append(self, kind: str, data: dict[str, Any]) -> None:
        """Write one entry and wait until it is on disk."""
        entry: dict[str, Any] = {
            "n": self._number,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "kind": kind,
            "data": data,
            "prev": self._prev,
        }
        entry["hash"] = hashlib.sha256(canonical(entry)).hexdigest()
        self._write(canonical(entry) + b"\n")
        self._number, self._prev, self.last_kind = self._number + 1, entry["hash"], kind

    def _write(self, line: bytes) -> None:
        """All of the line or none of it: a full disk may take half."""
        with files.append(self.path) as file:
            size = file.tell()
            try:
                written = file.write(line)
                os.fsync(file.fileno())
            except OSError:
                written = -1
            if written != len(line):
                file.truncate(size)
                raise GloveboxError("the audit log cannot be written", where=str(self.path), fix="free disk space")

    def _drop_torn_tail(self) -> None:
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            with self.path.open("r+b") as file:
                file.truncate(whole)


def finished(entries: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """The `finished` entries' data by (tag, experiment); entries of another shape are passed over."""
    out = {}
    for entry in entries:
        data = entry.get("data")
        if entry.get("kind") == "finished" and isinstance(data, dict):
            tag, number = data.get("tag"), data.get("id")
            if isinstance(tag, str) and isinstance(number, int):
                out[tag, number] = data
    return out


def accepted(entries: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """The `accepted` entries' data by (tag, experiment); entries of another shape are passed over."""
    out = {}
    for entry in entries:
        data = entry.get("data")
        if entry.get("kind") == "accepted" and isinstance(data, dict):
            tag, number = data.get("tag"), data.get("experiment")
            if isinstance(tag, str) and isinstance(number, int):
                out[tag, number] = data
    return out


def reruns(entries: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """The `rerun` entries' data by (tag, rerun); entries of another shape are passed over."""
    out = {}
    for entry in entries:
        data = entry.get("data")
        if entry.get("kind") == "rerun" and isinstance(data, dict) and isinstance(data.get("rerun"), dict):
            tag, number = data["rerun"].get("tag"), data["rerun"].get("id")
            if isinstance(tag, str) and isinstance(number, int):
                out[tag, number] = data
    return out


def verify(path: Path) -> list[dict[str, Any]]:
    """All entries of an intact chain; raises VerifyError naming the first line that does not fit."""
    return list(read(path))


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The same one by one, for whoever keeps none: each is checked when it comes."""
    if not path.exists():
        return
    prev = GENESIS
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b"")):
            try:
                entry = json.loads(line)
                claimed = entry.pop("hash")
                good = entry["n"] == number and entry["prev"] == prev
                good = good and hashlib.sha256(canonical(entry)).hexdigest() == claimed
            except (ValueError, KeyError, TypeError, AttributeError):
                good = False
            if not good:
                raise VerifyError(
                    "the audit chain is broken", where=f"{path}:{number + 1}", fix="compare with a backup or witness"
                )
            entry["hash"] = prev = claimed
            yield entry
