"""A shell agent's folder: what it edits is what runs, and what is best comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.tools import EditError
from agent.workspace import TRIED, VARIABLE, Workspace


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """train.py as it is mounted: one file, beside the directive."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "train.py").write_text("seed\n")
    return tmp_path / "work" / "train.py"


@pytest.fixture
def place(tmp_path: Path, mounted: Path) -> Workspace:
    made = Workspace(tmp_path / "space", mounted)
    made.prepare("be bold\n")
    return made


def copy(place: Workspace) -> Path:
    assert place.folder is not None
    return place.folder / "train.py"


def test_an_agent_finds_copies_that_can_be_renamed_over(place: Workspace, mounted: Path) -> None:
    assert (copy(place).read_text(), (copy(place).parent / "program.md").read_text()) == ("seed\n", "be bold\n")
    inode = mounted.stat().st_ino
    beside = copy(place).with_suffix(".new")  # as sed -i, editors and most agents write
    beside.write_text("better\n")
    beside.replace(copy(place))
    place.carry()
    assert mounted.read_text() == "better\n"
    assert mounted.stat().st_ino == inode  # nothing can take the mounted file's place


def test_what_was_tried_is_kept_beside_the_best(place: Workspace, mounted: Path) -> None:
    copy(place).write_text("worse\n")
    place.carry()
    mounted.write_text("seed\n")  # the runner puts the best back
    place.give_back()
    assert copy(place).read_text() == "seed\n"
    assert copy(place).with_name(TRIED).read_text() == "worse\n"


def test_an_agent_that_edits_the_mounted_file_is_not_undone(place: Workspace, mounted: Path) -> None:
    mounted.write_text("edited in place\n")
    place.carry()
    assert mounted.read_text() == "edited in place\n"
    place.give_back()
    assert copy(place).read_text() == "edited in place\n"


def test_two_different_edits_are_a_question_and_the_same_one_twice_is_none(place: Workspace, mounted: Path) -> None:
    mounted.write_text("one\n")
    copy(place).write_text("other\n")
    with pytest.raises(EditError, match=r"both .* were edited"):
        place.carry()
    place.carry(copy(place))
    assert mounted.read_text() == "other\n"
    copy(place).write_text("same\n")
    mounted.write_text("same\n")
    place.carry()
    assert mounted.read_text() == "same\n"


def test_nothing_edited_is_run_as_it_is(place: Workspace, mounted: Path) -> None:
    place.carry()
    assert mounted.read_text() == "seed\n"


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"", b"x = '\xc3\xa9'\r\n"])
def test_bytes_arrive_as_they_are(place: Workspace, mounted: Path, data: bytes) -> None:
    """What is no text is for the runner to refuse, not for us to mend."""
    copy(place).write_bytes(data)
    place.carry()
    assert mounted.read_bytes() == data


def test_a_file_that_is_none_or_too_large_is_told(place: Workspace, tmp_path: Path) -> None:
    with pytest.raises(EditError, match="cannot be read"):
        place.carry(tmp_path / "nowhere.py")
    large = tmp_path / "large.py"
    large.write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(EditError, match="larger"):
        place.carry(large)
    large.write_bytes(b"x" * (1 << 20))
    place.carry(large)


def test_without_a_folder_the_mounted_file_is_all_there_is(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    alone = Workspace(mounted=mounted)
    mounted.write_text("edited\n")
    alone.carry()
    alone.give_back()
    assert mounted.read_text() == "edited\n"
    assert {path.name for path in mounted.parent.iterdir()} == {"train.py"}


def test_what_was_not_run_is_not_called_tried(place: Workspace, mounted: Path) -> None:
    copy(place).write_text("half an idea\n")
    place.prepare("be bold\n")  # the next start
    assert copy(place).read_text() == "half an idea\n"
    assert not copy(place).with_name(TRIED).exists()
    place.give_back(anyway=True)  # bench restore
    assert copy(place).read_text() == "seed\n"
    assert copy(place).with_name(TRIED).read_text() == "half an idea\n"
