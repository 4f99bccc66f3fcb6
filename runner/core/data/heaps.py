"""Training documents on their way to the shards they belong to: heaps on disk, by a hash of what they say. TRUSTED.

Each heap, read whole and put in the hash's order, is a shard; so sources are mixed, whatever order their files come in.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from runner.core.base.errors import ArtifactError
from runner.core.data import splitting

HEAP = 64 << 20  # bytes of text, about
MOST = 256
LOOK_EVERY, DISK_LEFT = 64 << 20, 1 << 30  # bytes written between two looks at the disk, and what is left of it
_GROUP = 1000  # documents
_HEAD = struct.Struct(">QI")
_STEP = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, odd


class Heaps:
    """Training documents on their way to the shards they belong to."""

    def __init__(self, files: Sequence[BinaryIO], folder: Path) -> None:
        self.files, self.folder = files, folder
        self.hashes = [hashlib.sha256() for _ in files]
        self.documents = [0] * len(files)
        self.sizes = [0] * len(files)  # bytes of text
        self.count = self._unlooked = 0

    def add(self, of: splitting.Key, text: bytes) -> None:
        """Copies lie apart: each is moved on by a step that visits all places before it comes back (Weyl, 1916)."""
        order = (of.order + self.count * _STEP) % (1 << 64)
        at = order * len(self.files) >> 64
        frame = _HEAD.pack(order, len(text)) + text
        self.files[at].write(frame)
        self.hashes[at].update(frame)
        self.documents[at] += 1
        self.sizes[at] += len(text)
        self.count += 1
        self._unlooked += len(text)
        if self._unlooked > LOOK_EVERY:
            self._unlooked = 0
            if shutil.disk_usage(self.folder).free < DISK_LEFT:
                what = f"the disk is full but for {DISK_LEFT >> 20} MiB, after {sum(self.sizes) >> 20} MiB of text"
                raise ArtifactError(what, where=str(self.folder), fix="free disk space, or use less text")


def read(path: Path) -> Iterator[list[str]]:
    """A heap's documents in their order, in groups."""
    data, at, found = path.read_bytes(), 0, list[tuple[int, int, int]]()
    while at < len(data):
        order, length = _HEAD.unpack_from(data, at)
        found.append((order, at + _HEAD.size, length))
        at += _HEAD.size + length
    found.sort()
    for first in range(0, len(found), _GROUP):
        yield [data[start : start + length].decode() for _, start, length in found[first : first + _GROUP]]
