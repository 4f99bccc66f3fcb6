"""What the supervisor or compose asks of the broker process. TRUSTED."""

from __future__ import annotations

from runner.core.base.launching import Frozen
from runner.core.base.values import Tag


class Settings(Frozen):
    """Command line of `python -m runner.rooms.broker`."""

    policies: list[str]  # folders, the first that has a file wins
    state: str  # folder of its own: calls.jsonl, spent.sqlite
    doors: str  # folder of the sockets
    tag: Tag
    key_file: str
    held: bool = True  # end when stdin closes
