"""What a person asks of a tag while it runs: one small file each in the bench, until a session takes it in. TRUSTED.

The record has one writer, the session. So `glovebox hint` and its like write no record: they leave a request, and the
session makes a signed entry of it before it acts on it (rooms/desk/steering.py).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from runner.core.base import files
from runner.core.base.errors import UsageError
from runner.core.base.home import Home
from runner.core.base.launching import Frozen
from runner.core.base.mountable import SHIPPED
from runner.core.base.values import Tag

HINT_CHARS = 1000
MAX_WAITING = 200  # requests of one tag that no session has taken in
_MAX_BYTES = 16 << 10
Verb = Literal["hint", "clear", "pause", "resume", "veto", "prune", "pruned"]
_OF_SESSIONS = ("prune", "pruned")  # noted by the session itself: no file asks for them


class Request(Frozen):
    """`hint`: words for the agent, told until `clear`; `veto`: take a keep back; pause and resume.

    `prune`: a pruning began at this best; `pruned`: it is over, with this one.
    """

    request: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    asked: str  # UTC time stamp
    verb: Verb
    text: Annotated[str, Field(max_length=HINT_CHARS)] = ""  # of a hint, on one line
    experiment: Annotated[int, Field(ge=0)] = 0  # of a veto or a pruning


class Steer(Request):
    """A request as it is recorded: when a session took it in, and after how many experiments that had ended."""

    id: int
    tag: Tag
    taken: str
    after: int


def directive(home: Home) -> Path:
    """What the person wants of agents: the bench's own, else the one that Glovebox comes with."""
    return home.program if home.program.exists() else SHIPPED / "program.md"


def paused(steers: list[Steer], waiting: list[Request] | tuple[Request, ...] = ()) -> bool:
    """Whether the newest pause came after the newest resume, or is about to."""
    verbs = [one.verb for one in (*steers, *waiting) if one.verb in ("pause", "resume")]
    return verbs[-1:] == ["pause"]


def hints(steers: list[Steer]) -> list[Steer]:
    """Those that were not cleared since, oldest first."""
    found: list[Steer] = []
    for one in steers:
        found = [] if one.verb == "clear" else [*found, one] if one.verb == "hint" else found
    return found


def vetoes(steers: Sequence[Steer]) -> dict[int, int]:
    """Keeps that people took back, and after how many experiments they first asked for it."""
    return {one.experiment: one.after for one in reversed(steers) if one.verb == "veto"}


def request(verb: Verb, asked: str, *, text: str = "", experiment: int = 0) -> Request:
    """A request of its own name."""
    return Request(request=uuid.uuid4().hex, asked=asked, verb=verb, text=text, experiment=experiment)


def ask(home: Home, tag: str, verb: Verb, asked: str, *, text: str = "", experiment: int = 0) -> Request:
    """Leave a request for the tag's session; raises UsageError if too many wait for one."""
    folder = asked_of(home, tag)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if len(_names(folder)) >= MAX_WAITING:
        raise UsageError(
            f"{MAX_WAITING} requests wait for a session of tag {tag}",
            where=str(folder),
            fix="start the tag again, or remove them",
        )
    made = request(verb, asked, text=text, experiment=experiment)
    files.write(folder / f"{time.time_ns():020d}-{made.request}.json", made.model_dump_json() + "\n", mode=0o600)
    return made


def waiting(home: Home, tag: str) -> list[tuple[Path, Request | None]]:
    """What no session has taken in, oldest first; None for a file that is no request."""
    folder = asked_of(home, tag)
    return [(folder / name, _read(folder / name)) for name in _names(folder)[: 2 * MAX_WAITING]]


def asked_of(home: Home, tag: str) -> Path:
    """Where requests for a tag lie."""
    return home.root / "asked" / home.tag(tag).name  # which is a part of a path, or an error


def _names(folder: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return sorted(path.name for path in folder.iterdir() if path.suffix == ".json")
    return []


def _read(path: Path) -> Request | None:
    with suppress(OSError, ValidationError):
        found = Request.model_validate_json(files.read_plain(path, _MAX_BYTES))
        return None if found.verb in _OF_SESSIONS else found
    return None
