"""The trainer's telemetry: upstream's progress lines become events, and nothing printed can crash training."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.conftest import Told, strict
from trainer import telemetry


@pytest.fixture
def tee(told: Told) -> telemetry.Tee:
    return telemetry.Tee(io.StringIO())


def of(told: Told, kind: str) -> list[dict[str, Any]]:
    return [event for event in told() if event["event"] == kind]


def test_upstreams_progress_and_summary_become_events(tee: telemetry.Tee, told: Told) -> None:
    for step in (0, 1):
        tee.write(
            f"\rstep {step:05d} (0.1%) | loss: 9.01{step}000 | lrm: 1.00 | dt: 300ms | tok/sec: 1,000 | mfu: 39.8% |"
            " epoch: 1 | remaining: 300s    "
        )
    tee.write("\n---\nval_bpb:          nan\nnum_steps:        953\npeak_vram_mb:     45060.2\n")
    assert [(e["step"], e["loss"]) for e in of(told, "step")] == [(0, 9.01), (1, 9.011)]
    assert {e["name"]: e["value"] for e in of(told, "summary")} == {"num_steps": 953.0, "peak_vram_mb": 45060.2}


def test_everything_is_passed_on(tee: telemetry.Tee) -> None:
    tee.write("a\rb\nstep 1 loss: 2.5.\n")
    assert tee._stream.getvalue() == "a\rb\nstep 1 loss: 2.5.\n"


@pytest.mark.parametrize(
    ("printed", "loss"),
    [
        ("5.310000", 5.31),
        ("7", 7.0),
        ("-0.25", -0.25),
        ("1.2e+05", 120_000.0),
        ("1.2E5", 120_000.0),
        ("3e-05", 3e-05),
        ("123456789.5", 123_456_789.5),
    ],
)
def test_a_loss_is_read_as_it_is_printed(tee: telemetry.Tee, told: Told, printed: str, loss: float) -> None:
    tee.write(f"step 00012 | loss: {printed} | dt: 3ms\n")
    assert [(e["step"], e["loss"]) for e in told()] == [(12, loss)]


@pytest.mark.parametrize("printed", ["1234567890.5", "nano", "info", "1.2e", "1.2e+1234", "1.5.2", "0x1f", "two"])
def test_what_only_begins_like_a_number_is_no_loss(tee: telemetry.Tee, told: Told, printed: str) -> None:
    tee.write(f"step 12 | loss: {printed} | dt: 3ms\n")
    assert told() == []


# A loss that is no number


@pytest.mark.parametrize("printed", ["nan", "NaN", "-nan", "inf", "-inf", "Inf", "1e999"])
def test_a_loss_that_is_no_number_is_told_as_diverged(tee: telemetry.Tee, told: Told, printed: str) -> None:
    tee.write("step 00010 | loss: 5.0 | dt: 3ms\n")
    tee.write(f"step 00011 | loss: {printed} | dt: 3ms\n")
    assert told()[1:] == [{"event": "diverged", "step": 11}]


def test_diverging_is_told_once_and_what_follows_is_still_read(tee: telemetry.Tee, told: Told) -> None:
    for step, loss in enumerate(("nan", "inf", "nan", "4.0")):
        tee.write(f"\rstep {step:05d} | loss: {loss} | remaining: 3s   ")
    assert [(e["event"], e["step"]) for e in told()] == [("diverged", 0), ("step", 3)]


def test_diverging_is_told_however_soon_after_a_step(
    tee: telemetry.Tee, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "_MIN_INTERVAL", 3600.0)
    monkeypatch.setattr(telemetry, "_last_step", -3600.0 + telemetry._started)
    for step, loss in enumerate(("5.0", "4.9", "nan")):
        tee.write(f"step {step} loss: {loss}\n")
    assert [(e["event"], e["step"]) for e in told()] == [("step", 0), ("diverged", 2)]


def test_a_loss_that_was_a_number_again_may_be_told_as_none_again(tee: telemetry.Tee, told: Told) -> None:
    for step, loss in enumerate(("nan", "4.0", "nan", "nan")):
        tee.write(f"step {step} | loss: {loss} |\n")
    assert [(e["event"], e["step"]) for e in told()] == [("diverged", 0), ("step", 1), ("diverged", 2)]


def test_a_loss_that_is_a_number_again_is_told_however_soon(
    tee: telemetry.Tee, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the newest that the host knows is the one that is no number, and it ends the run."""
    monkeypatch.setattr(telemetry, "_MIN_INTERVAL", 3600.0)
    for step, loss in enumerate(("5.0", "nan", "4.9", "4.8")):
        tee.write(f"step {step} | loss: {loss}\n")
    assert [(e["event"], e["step"]) for e in told()][-2:] == [("diverged", 1), ("step", 2)]


@pytest.mark.parametrize("line", ["0%|  | 0/100 [00:00<?, ?it/s, loss=nan]", "[final] loss: nan", "loss: inf"])
def test_no_number_without_a_step_says_nothing(tee: telemetry.Tee, told: Told, line: str) -> None:
    tee.write(line + "\n")
    assert told() == []


def test_a_script_whose_progress_is_not_understood_is_told_so(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    tee = telemetry.Tee(io.StringIO())
    monkeypatch.setattr(telemetry.sys, "stdout", tee)
    for number in range(9):
        tee.write(f"at {number}: {5 - number / 10} nats\n")
    telemetry.phase("hand_over")
    assert of(told, "crash") == []  # so little may be said of anything
    tee.write("at 9: 4.1 nats\n")
    telemetry.phase("hand_over")
    (hint,) = of(told, "crash")
    assert (hint["error"], hint["message"]) == ("UserWarning", "no progress line recognised")
    tee.write("step 10 | loss: 4.0\n")
    telemetry.phase("hand_over")
    assert len(of(told, "crash")) == 1


LOSSES = st.one_of(
    st.floats().map(lambda x: f"{x:.6f}"),
    st.floats().map(lambda x: f"{x:.3e}"),
    st.floats().map(repr),
    st.sampled_from(["NaN", "Infinity", "1e999", "-1e999", "nan.", "inf inf"]),
)


@given(st.lists(st.tuples(st.integers(0, 10**9), LOSSES), max_size=6))
def test_every_line_of_the_file_is_json_whatever_is_printed_as_a_loss(
    tmp_path_factory: pytest.TempPathFactory, printed: list[tuple[int, str]]
) -> None:
    out = tmp_path_factory.getbasetemp() / "strict"
    out.mkdir(exist_ok=True)
    path = out / "telemetry.jsonl"
    path.write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOVEBOX_OUT", str(out))
        patch.setattr(telemetry, "_said", set())
        patch.setattr(telemetry, "_MIN_INTERVAL", 0.0)
        tee = telemetry.Tee(io.StringIO())
        for step, loss in printed:
            tee.write(f"step {step} | loss: {loss} |\nval_bpb: {loss}\n")
    events = [strict(line) for line in path.read_bytes().splitlines()]
    assert sum(event["event"] == "diverged" for event in events) <= len(printed)


def test_the_check_above_sees_what_is_no_json() -> None:
    with pytest.raises(ValueError, match="no JSON"):
        strict('{"event": "step", "loss": NaN}')


# What is told once


def test_each_kind_of_attention_is_told_once(told: Told) -> None:
    for kind in ("masked", "sdpa", "masked", "masked", "sdpa"):
        telemetry.attention(kind)
    assert told() == [{"event": "attention", "kind": "masked"}, {"event": "attention", "kind": "sdpa"}]


# Nothing printed fails the training


@given(st.text(alphabet="step 0123456789.:|loss-\r\nnaife+", max_size=120))
def test_no_text_makes_printing_fail(text: str) -> None:
    telemetry.Tee(io.StringIO()).write(text)


def test_a_full_or_missing_file_does_not_fail_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOVEBOX_OUT", str(tmp_path / "missing"))
    monkeypatch.setattr(telemetry, "_said", set())
    telemetry.phase("start")
    telemetry.crash(ValueError("x" * 10_000), 3)
    telemetry.step(1, float("nan"))
    telemetry.attention("sdpa")


@pytest.mark.parametrize("printed", ["2.3025850929940455", "2.5."])
def test_a_loss_is_read_however_many_digits_and_at_the_end_of_a_sentence(
    tee: telemetry.Tee, told: Told, printed: str
) -> None:
    tee.write(f"step 1 | loss: {printed} | dt\n")
    assert [event["loss"] for event in told()] == [float(printed.rstrip("."))]


def test_upstreams_giving_up_is_told_as_diverged(tee: telemetry.Tee, told: Told) -> None:
    tee.write("step 00011 | loss: 2.5 | remaining: 3s   ")
    tee.write("FAIL\n")
    assert [(event["event"], event["step"]) for event in told()] == [("step", 11), ("diverged", 12)]
