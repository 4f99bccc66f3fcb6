"""A covert channel through telemetry: an encoder a trainer could run, and the decoder an agent could run.

`encode` hides a whole number in everything that may cross: loss curve, summary and a crash with its line and the
numbers of a known message. `decode` takes it from the filter's output again.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise

from runner.core.airlock.telemetry_file import Filtered
from runner.core.policy.policy_files import Metric, Policies

INT_VALUES = 10**9  # a non-negative {int} blank
SHAPE_VALUES = 10**7
MESSAGE = (
    "The expanded size of the tensor ({}) must match the existing size ({}) at non-singleton dimension {}.  "
    "Target sizes: [{}].  Tensor sizes: [{}]"
)


def _radices(policies: Policies) -> list[int]:
    """How many values each place can take, all the places of one answer."""
    metrics = policies.metrics
    gap = int(metrics.step.maximum) // metrics.curve_points  # steps must rise: each gets a window of its own
    curve = [gap, _levels(metrics.loss)] * metrics.curve_points
    summary = [_levels(metric) for metric in metrics.summaries.values()]
    return curve + summary + [len(policies.errors.classes), 100_000] + [INT_VALUES] * 3 + [SHAPE_VALUES] * 12


def _levels(metric: Metric) -> int:
    return round((metric.maximum - metric.minimum) * 10**metric.digits)


def capacity(policies: Policies) -> float:
    """Bits that this encoder gets across in one answer."""
    return sum(math.log2(radix) for radix in _radices(policies))


def encode(policies: Policies, secret: int) -> bytes:
    """Telemetry lines that carry `secret`, below 2**capacity."""
    digits = []
    for radix in _radices(policies):
        secret, digit = divmod(secret, radix)
        digits.append(digit)
    metrics, places = policies.metrics, iter(digits)
    gap = int(metrics.step.maximum) // metrics.curve_points
    events: list[dict[str, object]] = [
        {"event": "step", "step": i * gap + next(places), "loss": _number(metrics.loss, next(places))}
        for i in range(metrics.curve_points)
    ]
    events += [
        {"event": "summary", "name": name, "value": _number(metric, next(places))}
        for name, metric in metrics.summaries.items()
    ]
    error, line = policies.errors.classes[next(places)], next(places)
    numbers = [next(places) for _ in range(3)]
    shapes = [", ".join(str(next(places)) for _ in range(6)) for _ in range(2)]
    message = MESSAGE.format(*numbers, *shapes)
    events.append({"event": "crash", "error": error, "line": line, "message": message})
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def _number(metric: Metric, digit: int) -> float:
    return metric.minimum + digit / 10**metric.digits


def decode(policies: Policies, seen: Filtered) -> int:
    """The secret, from what crossed."""
    metrics, crash = policies.metrics, seen.crash
    gap = int(metrics.step.maximum) // metrics.curve_points
    digits: list[int] = []
    for i, (step, loss) in enumerate(seen.telemetry.curve):
        digits += [step - i * gap, _digit(metrics.loss, loss)]
    digits += [_digit(metric, seen.telemetry.summary[name]) for name, metric in metrics.summaries.items()]
    assert crash is not None
    assert crash.message is not None
    digits += [policies.errors.classes.index(crash.error), crash.line, *_said(crash.message)]
    secret = 0
    for radix, digit in reversed(list(zip(_radices(policies), digits, strict=True))):
        secret = secret * radix + digit
    return secret


def _digit(metric: Metric, value: float) -> int:
    return round((value - metric.minimum) * 10**metric.digits)


def _said(text: str) -> list[int]:
    """Numbers of "[sizes] cannot be expanded to [target]: dimension D is E, not N", in the order they went in."""
    found = [int(part) for part in "".join(c if c.isdigit() else " " for c in text).split()]
    sizes, target, (dimension, existing, wanted) = found[:6], found[6:12], found[12:]
    return [wanted, existing, dimension, *target, *sizes]


def rising(curve: list[tuple[int, float]]) -> bool:
    """Whether steps rise, as the filter promises."""
    return all(a < b for (a, _), (b, _) in pairwise(curve))
