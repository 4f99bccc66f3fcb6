"""audit.jsonl: an append-only hash chain of what the runner did. TRUSTED.

Every line is a JSON object {"n", "time", "kind", "data", "prev", "hash"}; hash is SHA-256 over the line
without it, in canonical form, so an edited, dropped or reordered line breaks the chain from there on.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from runner.core.base import files
from runner.core.base.errors import GloveboxError, VerifyError
from runner.core.base.values import MAX_TAG, TAG_PATTERN

GENESIS = "0" * 64
MAX_LINE = 1 << 20
BEGUN = "begun"  # with what a tag began
CHECKPOINT = "checkpoint"  # a signature over all before it (checkpoints.py)
FOUND = "found"  # what a session found unsigned when it began: a crash came between, or somebody added it
STEERED = "steered"  # what a person asked of a tag
_NUMBERS = {BEGUN: "", "accepted": "experiment", "finished": "id", "rerun": "id", STEERED: "id"}  # as its data says


def canonical(value: dict[str, Any]) -> bytes:
    """The bytes that are hashed: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


class AuditLog:
    """One writer appends; a torn last line, left by a crash, is cut off when the log is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._drop_torn_tail()
        self._number, self._prev, self.last_kind = 0, GENESIS, ""
        self.unsigned = 0  # runs that ended after the last checkpoint
        self.checkpoint: dict[str, Any] | None = None  # the newest that was there
        for entry in read(path):
            self._take(entry)
            self.checkpoint = entry if entry["kind"] == CHECKPOINT else self.checkpoint
        self.inherited = self.last_kind not in ("", CHECKPOINT)  # whether what others wrote is unsigned

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
        self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        self._number, self._prev, self.last_kind = entry["n"] + 1, entry["hash"], entry["kind"]
        self.unsigned = 0 if entry["kind"] == CHECKPOINT else self.unsigned + ended(entry)

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


def ended(entry: dict[str, Any]) -> bool:
    """Whether an entry says of a run that it ended, be it from the ledger alone."""
    return entry.get("kind") in ("finished", "rerun")


def named(entry: dict[str, Any]) -> tuple[tuple[str, int], dict[str, Any]] | None:
    """((tag, number), data) of an entry about a tag (its number is 0), an experiment, a rerun or a request; None of
    another kind or shape."""
    data, kind = entry.get("data"), entry.get("kind")
    inner = data.get("rerun") if kind == "rerun" and isinstance(data, dict) else data
    if not isinstance(kind, str) or kind not in _NUMBERS or not isinstance(data, dict) or not isinstance(inner, dict):
        return None
    tag, number = inner.get("tag"), 0 if kind == BEGUN else inner.get(_NUMBERS[kind])
    if not isinstance(tag, str) or len(tag) > MAX_TAG or not re.fullmatch(TAG_PATTERN, tag) or type(number) is not int:
        return None
    return (tag, number), data


def by_name(entries: Iterable[dict[str, Any]], kind: str) -> dict[tuple[str, int], dict[str, Any]]:
    """Data of the entries of one kind by tag and number."""
    return dict(found for entry in entries if entry.get("kind") == kind and (found := named(entry)) is not None)


def half(line: bytes, most: int) -> bool:
    """Whether a line may only be half written yet; one of `most` bytes is no line, whoever writes."""
    return not line.endswith(b"\n") and len(line) < most


def verify(path: Path) -> list[dict[str, Any]]:
    """All entries of an intact chain; raises VerifyError naming the first line that does not fit."""
    return list(read(path))


def read(path: Path, advance: Callable[[float], None] = lambda _: None) -> Iterator[dict[str, Any]]:
    """The same one by one, for whoever keeps none: each is checked when it comes. `advance` is told of bytes read."""
    return Follower(path).new(advance)


class Follower:
    """Reads a chain that grows: each entry is read and checked once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number, self._prev = 0, GENESIS
        self.offset = 0  # bytes that were read

    def new(
        self, advance: Callable[[float], None] = lambda _: None, *, growing: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Entries since the last that was read; raises VerifyError naming the first line that does not fit.

        `growing`: somebody writes just now, so an end without a newline is not there yet.
        """
        size = self._path.stat().st_size if self._path.exists() else 0
        if size < self.offset:
            raise VerifyError("the audit chain was cut while it was read", where=str(self._path), fix="look who did")
        if not size:
            return
        with self._open() as file:
            file.seek(self.offset)
            for line in iter(lambda: file.readline(MAX_LINE), b""):
                if growing and half(line, MAX_LINE):
                    return
                entry = self._checked(line)
                self._number, self._prev, self.offset = self._number + 1, entry["hash"], self.offset + len(line)
                advance(len(line))
                yield entry

    def _open(self) -> BinaryIO:
        try:
            return files.open_plain(self._path)
        except OSError as error:
            told = f"the audit chain cannot be read: {error.strerror}"
            raise VerifyError(told, where=str(self._path), fix="see what it is: ls -l") from None

    def _checked(self, line: bytes) -> dict[str, Any]:
        try:
            entry: dict[str, Any] = json.loads(line)
            claimed = entry.pop("hash")
            good = type(entry["n"]) is int and entry["n"] == self._number and entry["prev"] == self._prev
            good = good and hashlib.sha256(canonical(entry)).hexdigest() == claimed
            good = good and canonical({**entry, "hash": claimed}) + b"\n" == line  # else it says to others what we miss
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            good = False
        if not good:
            where = f"{self._path}:{self._number + 1}"
            raise VerifyError("the audit chain is broken", where=where, fix="compare with a backup or witness")
        entry["hash"] = claimed
        return entry
