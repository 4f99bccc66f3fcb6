"""The key comes from a private file and prints as [key]."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.core.base import secret_file
from runner.core.base.errors import PolicyError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("sk-ant-0123456789\n")
    path.chmod(0o600)
    return path


def test_a_private_file_with_one_key(path: Path) -> None:
    found = secret_file.read(path)
    assert found.reveal() == "sk-ant-0123456789"
    assert "sk-ant" not in repr(found) + str(found) + f"{found}"
    assert found.scrub(b"your key sk-ant-0123456789 is bad") == b"your key [key] is bad"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666])
def test_a_file_others_can_read_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(PolicyError, match="chmod 600"):
        secret_file.read(path)


@pytest.mark.parametrize("text", ["", "two words", "a\nb", "short", "é" * 20, "x" * 5000])
def test_a_file_without_one_key_is_refused_without_its_content(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(PolicyError) as caught:
        secret_file.read(path)
    assert text == "" or text not in str(caught.value)


def test_a_link_a_pipe_and_nothing_are_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name in ("link", "fifo", "none"):
        with pytest.raises(PolicyError):
            secret_file.read(tmp_path / name)
