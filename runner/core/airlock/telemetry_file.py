"""The one place where the trainer's bytes become values. TRUSTED, hostile input.

In: telemetry.jsonl as the trainer left it. Out: Telemetry (numbers inside policy ranges, rounded), a Crash
(a class name from a closed list, a line number, and our own sentence with the numbers of a known message) and a
not-exportable reason from a closed list. No character the trainer chose survives: every string that leaves is one
of ours, picked by comparison or written from a number. leak_budget.py counts what can cross, in bits.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple, get_args

from runner.core.airlock import error_messages
from runner.core.base.values import Attention, Crash, Telemetry
from runner.core.policy.policy_files import Errors, Metric, Metrics
from trainer.wire import strict_json

MAX_LINE_NUMBER = 100_000
NOT_EXPORTABLE = (
    "data_dependent_shape",
    "data_dependent_control_flow",
    "custom_op",
    "unsupported_op",
    "higher_order_op",
    "random_numbers",
    "mutation",
    "forward_signature",
    "output_shape",
    "over_limit",
    "other",
)
PHASES = ("ready", "start", "hand_over", "done")
ATTENTIONS = get_args(Attention)


class Filtered(NamedTuple):
    """What may cross."""

    telemetry: Telemetry
    crash: Crash | None
    not_exportable: str | None
    diverged: bool = False
    attention: tuple[Attention, ...] = ()  # for people: no answer tells it


def read(path: Path, metrics: Metrics, errors: Errors) -> Filtered:
    """Filter a telemetry file, reading at most policy's telemetry_bytes of it."""
    return filter_lines(_head(path, metrics), metrics, errors)


def losses(path: Path, metrics: Metrics, errors: Errors) -> list[float]:
    """The losses a run has reported so far, under the same caps."""
    return [loss for _, loss in _accepted(_head(path, metrics), metrics, errors).curve]


def diverging(path: Path, metrics: Metrics, errors: Errors) -> bool:
    """Whether the newest loss that a run reported is no number, after one that was, and it is not handing over."""
    data = _head(path, metrics)
    return b'"diverged"' in data and _accepted(data, metrics, errors).diverging


def handing_over(path: Path, metrics: Metrics) -> bool:
    """Whether the last whole line says that the hand-over begins. A hint: nothing but a start follows it."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 2 * metrics.line_bytes))
            line = file.read(2 * metrics.line_bytes).rpartition(b"\n")[0].rpartition(b"\n")[2]
        event = strict_json.loads(line, max_bytes=metrics.line_bytes, max_depth=1)
    except (OSError, strict_json.StrictJsonError):
        return False
    return isinstance(event, dict) and (event.get("event"), event.get("phase")) == ("phase", "hand_over")


def filter_lines(data: bytes, metrics: Metrics, errors: Errors) -> Filtered:
    """Filter telemetry bytes: unknown, malformed and excess lines are dropped and counted."""
    state = _accepted(data, metrics, errors)
    telemetry = Telemetry(
        curve=downsample(state.curve, metrics.curve_points),
        summary={name: state.summary[name] for name in metrics.summaries if name in state.summary},  # not its order
        dropped_lines=min(state.dropped, metrics.lines),
    )
    ways = tuple(kind for kind in ATTENTIONS if kind in state.attention)
    return Filtered(telemetry, state.crash, state.not_exportable, state.diverged, ways)


def _head(path: Path, metrics: Metrics) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(metrics.telemetry_bytes)
    except OSError:
        return b""


def _accepted(data: bytes, metrics: Metrics, errors: Errors) -> _State:
    lines = data.split(b"\n", metrics.lines)
    state = _State(metrics, errors)
    for line in lines[: metrics.lines]:
        if line:
            state.accept(line)
    if len(lines) > metrics.lines:
        state.dropped += 1
    return state


class _State:
    def __init__(self, metrics: Metrics, errors: Errors) -> None:
        self.metrics, self.errors = metrics, errors
        self.curve: list[tuple[int, float]] = []
        self.summary: dict[str, float] = {}
        self.crash: Crash | None = None
        self.not_exportable: str | None = None
        self.diverged = False  # the newest loss is no number
        self.leaving = False
        self.attention: set[str] = set()
        self.dropped = 0

    def accept(self, line: bytes) -> None:
        try:
            event = strict_json.loads(line, max_bytes=self.metrics.line_bytes, max_depth=1)
        except strict_json.StrictJsonError:
            self.dropped += 1
            return
        if not (isinstance(event, dict) and self._event(event)):
            self.dropped += 1

    def _event(self, event: dict[str, Any]) -> bool:
        kind = event.get("event")
        if kind == "phase":
            self.leaving = self.leaving or event.get("phase") in ("hand_over", "done")
            return event.get("phase") in PHASES
        if kind == "step":
            return self._step(event)
        if kind == "summary":
            return self._summary(event)
        if kind == "crash":
            self.crash = self._crash(event)
            return True
        if kind == "not_exportable":
            self.not_exportable = pick(event.get("reason"), NOT_EXPORTABLE, "other")
            return True
        if kind == "diverged":
            self.diverged = True
            return True
        if kind == "attention" and (way := pick(event.get("kind"), ATTENTIONS, "")):
            self.attention.add(way)
            return True
        return False

    @property
    def diverging(self) -> bool:
        return self.diverged and bool(self.curve) and not self.leaving

    def _step(self, event: dict[str, Any]) -> bool:
        if type(event.get("loss")) in (int, float):  # a number, whether or not it is one we tell
            self.diverged = False
        step = bounded(event.get("step"), self.metrics.step)
        loss = bounded(event.get("loss"), self.metrics.loss)
        if step is None or loss is None or (self.curve and step <= self.curve[-1][0]):
            return False
        self.curve.append((int(step), loss))
        return True

    def _summary(self, event: dict[str, Any]) -> bool:
        name = pick(event.get("name"), tuple(self.metrics.summaries), "")
        metric = next((m for known, m in self.metrics.summaries.items() if known == name), None)
        value = bounded(event.get("value"), metric) if metric else None
        if value is None:
            return False
        self.summary[name] = value
        return True

    def _crash(self, event: dict[str, Any]) -> Crash:
        name = pick(event.get("error"), tuple(self.errors.classes), "Exception")
        told = error_messages.tell(event.get("message"), self.errors.templates)
        return Crash(
            error=name,
            line=line_number(event.get("line")),
            template=told.template if told else None,
            message=told.text if told else None,
        )


def pick(value: object, known: tuple[str, ...], default: str) -> str:
    """The known string equal to `value`: ours, not the caller's object; else the default."""
    return next((name for name in known if name == value), default)


def line_number(value: object) -> int:
    """A line of train.py; 0 for anything that is not one."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_LINE_NUMBER:
        return value
    return 0


def bounded(value: object, metric: Metric) -> float | None:
    """A number inside the metric's range, rounded to its digits; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if not metric.minimum <= value <= metric.maximum:
        return None
    return round(float(value), metric.digits) + 0.0  # + 0.0 turns -0.0 into 0.0


def downsample(curve: list[tuple[int, float]], points: int) -> list[tuple[int, float]]:
    """At most `points` of the curve, evenly by index, always with the last."""
    if len(curve) <= points:
        return curve
    if points < 2:
        return curve[-1:] if points else []
    last = len(curve) - 1
    return [curve[round(i * last / (points - 1))] for i in range(points)]
