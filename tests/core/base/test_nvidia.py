"""What the driver says of this host, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.core.base import nvidia


def test_no_gpu_is_no_line_and_a_stuck_driver_is_none_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert nvidia.gpus("name") == []
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert nvidia.gpus("name") == []
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 60\n")
    assert nvidia.gpus("name", seconds=0.2) == []
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nprintf 'H100, 90 %%, 1 MiB\\nA100, 5 %%, 2 MiB\\n'\n")
    assert nvidia.gpus("name") == ["H100, 90 %, 1 MiB", "A100, 5 %, 2 MiB"]
