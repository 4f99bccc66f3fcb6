"""What a probe from the host is: an attack that is made with its wall and without. TRUSTED."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runner.people.redteam.stage import Stage


class Blocked(Exception):
    """The wall held."""


class Unable(Exception):
    """This host does not allow the attempt."""


@dataclass(frozen=True)
class Scenario:
    """One attack from outside a container; `attack(stage, intact)`."""

    id: str
    threat: str
    control: str
    cis: str
    attack: Callable[[Stage, bool], None]
