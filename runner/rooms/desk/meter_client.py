"""The runner's side of meter.sock: tell the broker which experiment is under way, learn what is left. TRUSTED.

A broker that is away stops nobody: the answer is None, and the broker enforces its budgets by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from runner.core.base import dialing
from runner.core.base.errors import DoorError
from runner.core.base.launching import Frozen

_TIMEOUT = 5.0
Amount = Annotated[float, Field(ge=0, le=1e12)]


class Left(Frozen):
    """What remains of a budget: dollars rounded to cents, seconds to minutes."""

    dollars: Amount
    tokens: Amount
    requests: Amount
    seconds: Amount


class Budgets(Frozen):
    """Left of the experiment and of the night."""

    experiment: Left
    night: Left


class MeterClient:
    """Asks the broker, if there is one."""

    def __init__(self, door: Path | None) -> None:
        self.door = door

    def tell(self, experiment: int) -> Budgets | None:
        """The experiment that is worked on now; returns what is left, None without a broker."""
        if self.door is None:
            return None
        try:
            line = dialing.connect(self.door, _TIMEOUT)
        except DoorError:
            return None
        try:
            line.send({"experiment": experiment})
            answer = line.receive() or {}
        except DoorError:
            return None
        finally:
            line.close()
        return _budgets(answer.get("left"))


def _budgets(found: Any) -> Budgets | None:
    try:
        rounded = {scope: _rounded(found[scope]) for scope in ("experiment", "night")}
        return Budgets.model_validate(rounded)
    except (KeyError, TypeError, ValueError, ValidationError):
        return None


def _rounded(left: dict[str, float]) -> Left:
    seconds = 60.0 * round(float(left["seconds"]) / 60)
    return Left(
        dollars=round(float(left["dollars"]), 2),
        tokens=float(left["tokens"]),
        requests=float(left["requests"]),
        seconds=seconds,
    )
