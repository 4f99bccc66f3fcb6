"""Progress lines that people's scripts print, and lines that only look like one."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.progress_lines import MAX_LINE, Progress, parse, plain


@pytest.mark.parametrize(
    ("line", "step", "loss"),
    [
        ("step 00012 (3.1%) | loss: 5.310000 | lrm: 1.00 | dt: 3ms | tok/sec: 1,000 | remaining: 3s", 12, 5.31),
        ("step 1,234 | loss: 5.0 |", 1234, 5.0),  # thousands
        ("step 12_000 | loss: 1_234.5 |", 12000, 1234.5),
        ("step      7 | loss:    5.000 | remaining: 0s   ", 7, 5.0),  # aligned
        ("step 7 | aux loss: 0.01 | loss: 5.5 | remaining: 0s", 7, 5.5),
        ("step 7 | loss: 5.5 | aux loss: 0.01 | z_loss: 0.2", 7, 5.5),
        ("step 7 | loss: 5.5 | loss: 5.25", 7, 5.25),  # the last
        ("step 7 | loss: 1.2e+05 |", 7, 120_000.0),
        ("iter 250: loss 2.6143, time 120.30ms, mfu 12.10%", 250, 2.6143),
        ("step:10/100 train_loss:5.1234 train_time:1ms step_avg:0.1ms", 10, 5.1234),
        ("step:10/100 val_loss:5.1 train_loss:5.2", 10, 5.2),
        ("{'loss': 2.31, 'learning_rate': 0.001, 'step': 40}", 40, 2.31),
        ("[step=40] training loss = 2.5", 40, 2.5),
        ("loss 3.25", None, 3.25),
        ("Step 40, Loss: 2.5", 40, 2.5),
        ("step 10 - loss: 3.2", 10, 3.2),
        ("epoch 1, batch 4/16, step 10, loss: 3.2", 10, 3.2),
        ("batch 64 | step 10 | loss: 3.2", 10, 3.2),
        ("batch 3/16 loss: 3.2", 3, 3.2),
        ("tokens/step: 524288 | step 10 | loss: 3.1", 10, 3.1),
        ("total steps: 1000 | step 5 | loss: 3.2", 5, 3.2),
        ("step 10 | loss: 3.21 | aux/loss: 0.01", 10, 3.21),
        ("step 10 | train/loss: 3.21 | val/loss: nan", 10, 3.21),
        ("step 10 | loss: 3.21 | [eval] loss: 4.0", 10, 3.21),
        ("step 10 | loss: 3.21 | val: loss 4.0", 10, 3.21),
        ("Step [100/600], Loss: 0.23", 100, 0.23),
        ("Iteration 3/9 loss=-0.25", 3, -0.25),
    ],
)
def test_a_line_is_understood(line: str, step: int | None, loss: float) -> None:
    assert parse(line) == Progress(step, loss)


@pytest.mark.parametrize("printed", ["nan", "NaN", "-nan", "inf", "-Inf"])
def test_a_loss_may_be_no_number(printed: str) -> None:
    found = parse(f"iter 3: loss {printed}, time 1ms")
    assert found is not None
    assert not math.isfinite(found.loss)


@pytest.mark.parametrize(
    "line",
    [
        "step 7 | val_loss: 5.5", "aux loss: 0.1", "no loss here", "loss: see below", "loss: 5.5.2", "loss: 0x1f",
        "lossy 5.0", "loss of 3 points", "step 7", "", "gradient loss 5.0", "loss: 1,23", "saving loss_7.pt",
        "val/loss: 3.0", "[final] loss: nan", "best: loss 3.0", "loss: nan-safe cross entropy",
    ],
)  # fmt: skip
def test_other_lines_are_no_progress(line: str) -> None:
    assert parse(line) is None


def test_colours_are_nothing() -> None:
    line = "\x1b[1mstep 00007\x1b[0m | \x1b[32mloss: 5.25\x1b[0m | remaining: 0s"
    assert parse(plain(line)) == Progress(7, 5.25)


@given(st.text(max_size=300))
def test_any_text_gives_a_number_or_nothing(text: str) -> None:
    found = parse(plain("step 3 | loss: 1.0 | " + text))
    assert found is None or isinstance(found.loss, float)


@pytest.mark.parametrize(
    "unit", ["loss ", "loss:1,", "step 1 loss ", "| ", "(loss ", "1,111", "' loss", "\x1b[0;", "iteration ", " "]
)
def test_no_line_takes_long(unit: str) -> None:
    """It is on the training's own clock."""
    line = (unit * (MAX_LINE // len(unit) + 1))[:MAX_LINE] + "!"
    began = time.monotonic()
    for _ in range(10):
        parse(plain(line))
    assert time.monotonic() - began < 5.0  # of a pattern that tries everything again it would be hours
