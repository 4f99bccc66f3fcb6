"""One line of `glovebox doctor`, and how an action becomes one. TRUSTED."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from runner.core.base.errors import GloveboxError
from runner.rooms.launcher import engine

_ODD = (  # requests errors are OSErrors
    OSError,
    engine.Failed,
    subprocess.SubprocessError,
    KeyError,
    ValueError,
)
T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, whether it is fine, detail, and the fix if it is not."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def guarded(name: str, action: Callable[[], T], detail: Callable[[T], str]) -> tuple[T | None, Check]:
    """An action that may raise GloveboxError, as its value (None if it failed) and a Check."""
    try:
        value = action()
        return value, Check(name, True, detail(value))
    except GloveboxError as error:
        return None, Check(name, False, f"{error.where}: {error.what}" if error.where else error.what, error.fix)
    except _ODD as error:
        return None, _odd(name, error)


def safely(name: str, found: Iterator[Check]) -> Iterator[Check]:
    """Checks that may fail in ways they do not foresee: that is a failed check, not the end."""
    try:
        yield from found
    except GloveboxError as error:
        yield Check(name, False, str(error), error.fix)
    except _ODD as error:
        yield _odd(name, error)


def _odd(name: str, error: Exception) -> Check:
    return Check(
        name, False, f"{type(error).__name__}: {error}"[:200], "run it as the user who runs the bench, or as root"
    )
