"""docs/analysis.ipynb is run as it is, in a kernel of its own, on benches with and without anything to show."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.base.values import Status
from runner.core.evidence import results_tsv
from runner.core.evidence.ledger import Ledger
from tests.people.pages.test_report_page import night
from tests.samples import experiment

EXECUTE = """
import sys, nbclient, nbformat
from traitlets.config import Config
private = Config({"KernelManager": {"transport": "ipc"}})  # no port for others to knock at
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, config=private, timeout=120, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""
OLDEST = {"id", "status", "val_bpb", "description", "snapshot", "commit", "reason", "curve"}  # of a row's fields
NOTEBOOK = SOURCE / "docs" / "analysis.ipynb"


def run(home: Home, folder: Path) -> tuple[str, int]:
    """What it printed, and how many pictures it drew; raises RuntimeError with what a cell raised."""
    made = folder / "executed.ipynb"
    private = {name: str(folder / name) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")}
    environment = {**os.environ, **private, "MPLCONFIGDIR": str(folder), "GLOVEBOX_HOME": str(home.root)}
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(NOTEBOOK), str(made)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    outputs = [output for cell in nbformat.read(made, as_version=4).cells for output in cell.get("outputs", ())]
    text = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    return text, sum("image/png" in output.get("data", {}) for output in outputs)


def test_it_is_committed_without_outputs_and_as_its_format_says() -> None:
    found = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(found)
    assert not [cell for cell in found.cells if cell.get("outputs") or cell.get("execution_count")]


def test_it_reads_a_night(home: Home, tmp_path: Path) -> None:
    ledger = night(home, 45)
    row = experiment(
        46,
        gain=0.002,
        probability=0.93,
        sigma=0.0008,
        total=0.005,
        val_bpb=0.99,
        kinds=["schedule"],
        description="\ta = b",
    )
    ledger.open_experiment("t", started="", description="", snapshot=row.snapshot, size=1, run=row.run)
    ledger.close_experiment(row)
    rows = ledger.experiments("t")
    home.tag("t").mkdir(parents=True, exist_ok=True)
    results_tsv.write(home.tag("t") / "results.tsv", rows)
    ledger.close()
    before = hashlib.sha256(home.ledger.read_bytes()).hexdigest()
    text, pictures = run(home, tmp_path)
    kept = sum(row.status is Status.KEEP for row in rows)
    for part in (
        "t: 46 experiments, 0 reruns", f"to 0.990000, {kept - 1} kept after the baseline", "46 lines, 0 experiments differ",
        "probably real: 0.93", "noise of one run: 0.00080", "schedule", "crash: exception",
    ):  # fmt: skip
        assert part in text
    assert pictures == 2
    assert hashlib.sha256(home.ledger.read_bytes()).hexdigest() == before


@pytest.mark.parametrize("change", ["score", "outcome", "a line less", "a line more"])
def test_it_notices_a_table_that_is_not_the_ledgers(home: Home, tmp_path: Path, change: str) -> None:
    ledger = night(home, 3)
    home.tag("t").mkdir(parents=True, exist_ok=True)
    path = home.tag("t") / "results.tsv"
    results_tsv.write(path, ledger.experiments("t"))
    ledger.close()
    assert "3 lines, 0 experiments differ" in run(home, tmp_path)[0]
    lines = path.read_text().splitlines()
    if change == "score":
        lines[2] = lines[2].replace("1.0", "0.9", 1)
    elif change == "outcome":
        lines[2] = lines[2].replace("\tdiscard\t", "\tkeep\t")
    elif change == "a line less":
        del lines[2]
    else:
        lines.append(lines[2].replace("\t2\t", "\t77\t"))
    path.write_text("\n".join(lines) + "\n")
    number = "77" if change == "a line more" else "2"
    assert f"1 experiments differ from the ledger ['{number}']" in run(home, tmp_path)[0]


def test_a_keep_that_a_person_took_back_is_none_of_the_line(home: Home, tmp_path: Path) -> None:
    ledger = Ledger(home.ledger)
    ledger.begin_run("t", "2026-01-01T00:00:00+00:00", "demo-1", "f" * 64)
    for row in (
        experiment(1, val_bpb=1.0),
        experiment(2, val_bpb=0.9, gain=0.1, probability=0.9),
        experiment(3, val_bpb=1.0, veto=2, reason="taken_back"),
    ):
        ledger.open_experiment("t", started="", description="", snapshot=row.snapshot, size=1, run=row.run)
        ledger.close_experiment(row)
    ledger.close()
    text, _ = run(home, tmp_path)
    assert "val_bpb 1.000000 to 1.000000, 1 kept after the baseline" in text
    assert "findings to be expected" not in text


def test_rows_of_an_older_version_and_no_table_are_no_error(home: Home, tmp_path: Path) -> None:
    ledger = night(home, 5)
    ledger.close()
    with sqlite3.connect(home.ledger) as db:
        for number, text in db.execute("SELECT id, row FROM experiments").fetchall():
            old = {key: value for key, value in json.loads(text).items() if key in OLDEST}
            db.execute("UPDATE experiments SET row = ? WHERE id = ?", (json.dumps(old), number))
        db.execute("DROP TABLE reruns")
    db.close()
    text, pictures = run(home, tmp_path)
    assert ("t: 5 experiments, 0 reruns" in text, "0 lines, 0 experiments differ" in text, pictures) == (True, True, 2)


def test_a_ledger_without_an_experiment_is_no_error(home: Home, tmp_path: Path) -> None:
    ledger = Ledger(home.ledger)
    ledger.begin_run("t", "2026-01-01T00:00:00+00:00", "demo-1", "f" * 64)
    ledger.close()
    assert "no tag: 0 experiments" in run(home, tmp_path)[0]


def test_a_tag_of_one_baseline_is_no_error(home: Home, tmp_path: Path) -> None:
    ledger = Ledger(home.ledger)
    ledger.begin_run("t", "2026-01-01T00:00:00+00:00", "demo-1", "f" * 64)
    row = experiment(1, status=Status.CRASH, val_bpb=None, reason="exception")
    ledger.open_experiment("t", started="", description="", snapshot=row.snapshot, size=1, run=row.run)
    ledger.close_experiment(row)
    home.tag("t").mkdir(parents=True, exist_ok=True)
    results_tsv.write(home.tag("t") / "results.tsv", ledger.experiments("t"))
    ledger.close()
    text, pictures = run(home, tmp_path)
    assert ("t: 1 experiments" in text, pictures) == (True, 2)


def test_a_bench_without_a_ledger_is_an_error(home: Home, tmp_path: Path) -> None:
    assert not home.ledger.exists()
    with pytest.raises(RuntimeError, match="unable to open database file"):
        run(home, tmp_path)
    assert not home.ledger.exists()
