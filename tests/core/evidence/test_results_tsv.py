"""results.tsv: upstream's columns first, and nothing a spreadsheet would run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.base.values import Status
from runner.core.evidence import results_tsv
from tests.samples import experiment


def test_upstreams_five_columns_come_first(tmp_path: Path) -> None:
    path = tmp_path / "results.tsv"
    results_tsv.write(path, [experiment(1), experiment(2, status=Status.TIMEOUT, val_bpb=None, commit="c" * 40)])
    head, first, second = path.read_text().splitlines()
    assert head.split("\t")[:5] == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert first.split("\t")[:5] == ["0000000", "1.990000", "0.5", "keep", "idea 1"]
    assert second.split("\t")[:4] == ["ccccccc", "0.000000", "0.5", "crash"]
    assert second.split("\t")[6] == "timeout"


@pytest.mark.parametrize("start", list("=+-@＝＋－＠"))
def test_a_description_cannot_start_a_formula(start: str) -> None:
    assert results_tsv.cell(start + "cmd|' /C calc'!A0").startswith("'" + start)
    assert results_tsv.cell("a" + start) == "a" + start


@given(st.text(max_size=100))
def test_a_row_is_one_line_with_a_fixed_number_of_cells(description: str) -> None:
    line = results_tsv.line(experiment(1, description=description))
    assert len(line.splitlines()) == 1
    assert line.count("\t") == len(results_tsv.COLUMNS) - 1


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "results.tsv"
    results_tsv.write(path, [experiment(1)])
    inode = path.stat().st_ino
    results_tsv.write(path, [experiment(1), experiment(2)])
    assert path.stat().st_ino != inode
    assert [p.name for p in tmp_path.iterdir()] == ["results.tsv"]


def test_a_line_is_added_as_long_as_the_file_is_as_it_was_left(tmp_path: Path) -> None:
    path, rows = tmp_path / "results.tsv", [experiment(n) for n in range(1, 8)]
    results = results_tsv.Results(path)
    seen = set()
    for count in range(1, 8):
        results.add(rows[:count])
        seen.add(path.stat().st_ino)
        if count == 4:
            path.write_text(path.read_text() + "torn")  # somebody wrote, or a line came to half
        expected = tmp_path / "expected.tsv"
        results_tsv.write(expected, rows[:count])
        if count != 4:
            assert path.read_text() == expected.read_text()
    assert len(seen) == 2  # written anew at first, and once after that


@pytest.mark.parametrize("change", ["gone", "shorter", "two at once", "link"])
def test_else_it_is_written_anew(tmp_path: Path, change: str) -> None:
    path, rows = tmp_path / "results.tsv", [experiment(n) for n in range(1, 5)]
    results = results_tsv.Results(path)
    results.add(rows[:1])
    results.add(rows[:2])
    if change == "gone":
        path.unlink()
    elif change == "shorter":
        path.write_text("x")
    elif change == "link":
        (tmp_path / "theirs").write_text(path.read_text())
        path.unlink()
        path.symlink_to("theirs")
    results.add(rows if change == "two at once" else rows[:3])
    assert not path.is_symlink()
    assert len(path.read_text().splitlines()) == (5 if change == "two at once" else 4)
