"""The trainer's telemetry: upstream's progress lines become events, and nothing printed can crash training."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer import telemetry


@pytest.fixture
def tee(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> telemetry.Tee:
    monkeypatch.setenv("GLOVEBOX_OUT", str(tmp_path))
    monkeypatch.setattr(telemetry, "_MIN_INTERVAL", 0.0)
    return telemetry.Tee(io.StringIO())


def events(tmp_path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (tmp_path / "telemetry.jsonl").read_text().splitlines()]


def test_upstreams_progress_and_summary_become_events(tee: telemetry.Tee, tmp_path: Path) -> None:
    for step in (0, 1):
        tee.write(
            f"\rstep {step:05d} (0.1%) | loss: 9.01{step}000 | lrm: 1.00 | dt: 300ms | tok/sec: 1,000 | mfu: 39.8% |"
            " epoch: 1 | remaining: 300s    "
        )
    tee.write("\n---\nval_bpb:          nan\nnum_steps:        953\npeak_vram_mb:     45060.2\n")
    found = events(tmp_path)
    assert [(e["step"], e["loss"]) for e in found if e["event"] == "step"] == [(0, 9.01), (1, 9.011)]
    assert {e["name"]: e["value"] for e in found if e["event"] == "summary"} == {
        "num_steps": 953.0,
        "peak_vram_mb": 45060.2,
    }


def test_everything_is_passed_on(tee: telemetry.Tee) -> None:
    tee.write("a\rb\nstep 1 loss: 2.5.\n")
    assert tee._stream.getvalue() == "a\rb\nstep 1 loss: 2.5.\n"


@given(st.text(alphabet="step 0123456789.:|loss-\r\nnaif", max_size=120))
def test_no_text_makes_printing_fail(text: str) -> None:
    telemetry.Tee(io.StringIO()).write(text)


def test_a_full_or_missing_file_does_not_fail_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOVEBOX_OUT", "/nonexistent")
    telemetry.phase("start")
    telemetry.crash(ValueError("x" * 10_000), 3)
