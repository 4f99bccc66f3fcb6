"""The API key: read once from a file, held in memory, scrubbed from whatever leaves. TRUSTED.

A compose file secret, a systemd credential or a file of the person's own. Never an environment variable, an
argument or part of an image: those show up in inspect, ps and crash reports.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from runner.core.base.errors import PolicyError

_MAX_BYTES = 4096
_PART = 20  # characters of a key in a row; what all keys begin with is shorter
_SHAPE = re.compile(r"[\x21-\x7e]{8,512}")


class Key:
    """A secret that prints as [key]."""

    def __init__(self, value: str) -> None:
        self._value = value
        most = min(_PART, len(value))
        self._parts = [value[at : at + most] for at in range(len(value) - most + 1)]
        each = (
            b"(?:" + re.escape(c.encode()) + rb"|\\u00(?i:%02x)" % ord(c) + (rb"|\\/)" if c == "/" else b")")
            for c in value
        )
        self._written = re.compile(b"".join(each))

    def __repr__(self) -> str:
        return "[key]"

    def reveal(self) -> str:
        """The secret itself, for the one header it belongs in."""
        return self._value

    def scrub(self, data: bytes) -> bytes:
        """`data` without the key, should it have been echoed, as it is or in JSON's escapes."""
        return self._written.sub(b"[key]", data)

    def echoed(self, text: str) -> bool:
        """Whether decoded text holds so much of the key, anywhere, that it is no coincidence."""
        return any(part in text for part in self._parts)


def nobodys() -> Key:
    """What stands for a key where none is needed; it opens nothing and never leaves."""
    return Key(secrets.token_hex(32))


def read(path: Path, what: str = "API key") -> Key:
    """The secret in the file at `path`; raises PolicyError if it is missing, exposed or not one line of its kind."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        fix = f"write your {what} into it: mkdir -p -m 700 {path.parent}; (umask 077; cat > {path})"
        raise PolicyError(f"the {what} cannot be read: {error.strerror}", where=str(path), fix=fix) from None
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise PolicyError(f"the {what} is not a regular file", where=str(path), fix="put it into a file")
        if state.st_mode & 0o077:
            raise PolicyError(f"the {what} can be read by others", where=str(path), fix=f"chmod 600 {path}")
        data = file.read(_MAX_BYTES + 1)
    text = data.decode("ascii", errors="replace").strip()
    if not _SHAPE.fullmatch(text):
        raise PolicyError(f"the file does not hold one {what}", where=str(path), fix="put it on its only line")
    return Key(text)
