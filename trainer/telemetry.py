"""JSON lines from the trainer to the runner's filter. UNTRUSTED: every line is re-checked over there.

Events (policies/metrics.yaml is the schema):
    {"event": "phase", "phase": "ready"|"start"|"hand_over"|"done"}
    {"event": "step", "step": 10, "loss": 5.31, "seconds": 1.2}
    {"event": "diverged", "step": 11}
    {"event": "attention", "kind": "package"|"flash"|"sdpa"|"masked"}
    {"event": "summary", "name": "num_params_M", "value": 0.5}
    {"event": "crash", "error": "OutOfMemoryError", "line": 120, "message": "..."}
    {"event": "not_exportable", "reason": "custom_op"}

Upstream's train.py knows none of this; `Tee` recognises progress lines (progress_lines.py) and its closing summary.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from trainer.progress_lines import MAX_LINE, parse, plain

_MIN_INTERVAL = 0.2  # seconds between two step events
_MESSAGE_CHARS = 1500  # in ASCII, so that with escapes a line stays below the filter's cap
_SUMMARY = re.compile(
    r"(val_bpb|training_seconds|total_seconds|peak_vram_mb|mfu_percent|total_tokens_M|num_steps|num_params_M|depth):\s+(-?\d{1,12}(?:\.\d{0,12})?)$"
)

_MANY_LINES = 10  # without one that tells a loss
_GIVES_UP = "FAIL"  # what upstream's train.py prints when its loss is no number, or above 100

_started = time.monotonic()
_last_step = -1.0
_said: set[str] = set()  # what is told once


def _emit(event: dict[str, Any]) -> None:
    path = Path(os.environ.get("GLOVEBOX_OUT", "/out")) / "telemetry.jsonl"
    try:
        with path.open("ab", buffering=0) as file:
            file.write(json.dumps(event).encode() + b"\n")
    except OSError:
        pass  # a full file or a missing one must not fail the training


def begin() -> None:
    """train.py begins now."""
    global _started
    _started = time.monotonic()
    phase("start")


def phase(name: str) -> None:
    """Training entered a phase. Before its hand-over a script whose progress was not understood is told so."""
    if name == "hand_over" and getattr(sys.stdout, "puzzled", False):
        warn("no progress line recognised")
    _emit({"event": "phase", "phase": name, "seconds": round(time.monotonic() - _started, 3)})


def step(number: int, loss: float) -> None:
    """A training step's loss, at most five a second; the first in a row that is no number is told as such."""
    global _last_step
    now = time.monotonic()
    _said.add("progress")
    if not math.isfinite(loss):
        _once("diverged", {"event": "diverged", "step": number})
        return
    recovered = "diverged" in _said
    _said.discard("diverged")
    if recovered or now - _last_step >= _MIN_INTERVAL:
        _last_step = now
        _emit({"event": "step", "step": number, "loss": loss, "seconds": round(now - _started, 3)})


def attention(kind: str) -> None:
    """Which attention runs: a kernel package, torch's own kernel, or its public operation, with a mask or without."""
    _once(f"attention {kind}", {"event": "attention", "kind": kind})


def _once(what: str, event: dict[str, Any]) -> None:
    if what not in _said:
        _said.add(what)
        _emit(event)


def crash(error: BaseException, line: int) -> None:
    """The script ended with an exception raised at this line of train.py (0: unknown)."""
    try:
        message = str(error)[:_MESSAGE_CHARS].encode("ascii", "replace").decode()
    except Exception:  # noqa: BLE001 - an exception whose own text raises is still a crash
        message = ""
    _emit({"event": "crash", "error": type(error).__name__, "line": line, "message": message})


def not_exportable(reason: str, op: str = "") -> None:
    """The model cannot be handed over, because of this ATen operation if of one."""
    _emit({"event": "not_exportable", "reason": str(reason), "op": op})


def warn(message: str) -> None:
    """What the script's author should know although nothing failed; told like an exception, if the policy knows it."""
    _emit({"event": "crash", "error": "UserWarning", "line": 0, "message": message})


class Tee:
    """A stdout that passes everything on and turns progress lines and upstream's closing summary into events."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._line = ""
        self._step = 0  # the last that was printed
        self._lines = 0

    def write(self, text: str) -> int:
        self._line += text
        *lines, self._line = re.split(r"[\r\n]", self._line[-MAX_LINE:])
        for line in lines:
            self._look(line)
        if "remaining:" in self._line:  # upstream ends its progress line with spaces, not a newline
            self._look(self._line)
            self._line = ""
        return self._stream.write(text)

    def _look(self, coloured: str) -> None:
        line = plain(coloured)
        self._lines += 1
        if (found := parse(line)) is not None and (found.step is not None or math.isfinite(found.loss)):
            self._step = self._step + 1 if found.step is None else found.step
            step(self._step, found.loss)
        elif line == _GIVES_UP:
            step(self._step + 1, math.nan)
        elif match := _SUMMARY.match(line):
            _emit({"event": "summary", "name": match[1], "value": float(match[2])})

    @property
    def puzzled(self) -> bool:
        """Whether much was printed and none of it looked like progress."""
        return self._lines >= _MANY_LINES and "progress" not in _said

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
