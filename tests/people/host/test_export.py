"""Export and import: what one bench writes another can check, and nothing that was altered gets in."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.artifacts import keys, signing
from runner.core.base import steering
from runner.core.base.errors import ArtifactError, GloveboxError, VerifyError
from runner.core.base.files import hash_file
from runner.core.base.home import Home
from runner.core.base.values import Status
from runner.core.evidence import audit_chain
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.replay import replay
from runner.core.policy.policy_files import Policies
from runner.people.host import export, importing
from runner.people.host.export import FILES, MANIFEST, Manifest
from runner.people.pages import session_report
from tests.rooms.desk.conftest import Night
from tests.rooms.desk.conftest import night as night  # noqa: PLC0414 - a fixture
from tests.rooms.desk.test_reruns import Bench

A, B, C = "DEPTH = 2\nLR = 1\n", "DEPTH = 2\nLR = 2\n", "DEPTH = 3\nLR = 2\n"
EVIL = "`<script>` | @everyone ![x](http://e.example/x) \u202e"


@pytest.fixture
def bench(home: Home, policies: Policies) -> Bench:
    made = Bench(home, policies)
    made.experiment(A, s42=2.0)
    made.stages.scores.update(
        {
            (A.encode(), 43): 2.01,
            (A.encode(), 44): 1.99,
            (B.encode(), 43): 1.51,
            (B.encode(), 44): 1.5,
            (C.encode(), 44): 1.2,
        }
    )
    assert made.experiment(B, s42=1.5).status is Status.KEEP
    made.experiment("x = 1\n", s42=3.0)
    assert made.experiment(C, s42=1.2).status is Status.KEEP
    return made


@pytest.fixture
def folder(bench: Bench, tmp_path: Path) -> Path:
    return export.export(bench.home, bench.stages.policies, "t", "H100", tmp_path / "out")


def git(path: Path, *args: str) -> str:
    return subprocess.run(["git", "-C", str(path), *args], capture_output=True, text=True, check=True).stdout.strip()


def read(folder: Path, bench: Bench) -> importing.Imported:
    return importing.read(folder, keys.trust(bench.home), 1 << 18)


def sign_again(folder: Path, bench: Bench, **changes: Any) -> None:
    """A manifest of what is there now, by the bench's own key: what a careless or lying bench could send."""
    files = {name: hash_file(folder / name)[0] for name in FILES}
    payload = Manifest(tag="t", files=files).model_dump(by_alias=True, mode="json") | changes
    signing.write(folder / MANIFEST, json.dumps(payload).encode(), keys.signers(bench.home))


def test_the_branch_is_the_kept_line_then_the_records(bench: Bench, folder: Path) -> None:
    repository = bench.home.line
    subjects = git(repository, "log", "--reverse", "--format=%s", "exp/H100/t").splitlines()
    assert subjects == [
        "experiment 1: val_bpb 2.000000",
        "experiment 2: val_bpb 1.500000",
        "experiment 4: val_bpb 1.200000",
        "results of t",
    ]
    names = git(repository, "ls-tree", "--name-only", "exp/H100/t").splitlines()
    assert names == ["results.tsv", "session.md", "train.py"]
    assert git(repository, "show", "exp/H100/t:train.py") + "\n" == C
    assert len(git(repository, "show", "exp/H100/t:results.tsv").splitlines()) == 5
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, MANIFEST])


def test_a_plain_git_can_use_the_bundle(folder: Path, tmp_path: Path) -> None:
    subprocess.run(
        ["git", "clone", "-q", "-b", "exp/H100/t", str(folder / "branch.bundle"), str(tmp_path / "clone")], check=True
    )
    assert (tmp_path / "clone" / "train.py").read_text() == C


def test_what_was_exported_is_imported_and_new_tags_begin_with_it(
    bench: Bench, folder: Path, tmp_path: Path, policies: Policies
) -> None:
    public = keys.trust(bench.home).keys[0].public
    other = Home(tmp_path / "other")
    other.root.mkdir()
    keys.create(other)
    found = importing.read(folder, importing.trusting(other, public), 1 << 18)
    assert (found.source.decode(), found.best.id) == (C, 4)
    told = importing.begin(other, found)
    assert other.first().read_text() == C
    assert told["checked"]["verdicts"] == 4
    assert [entry["kind"] for entry in audit_chain.verify(other.audit)] == ["imported", "checkpoint"]
    with pytest.raises(ArtifactError, match="no key this bench knows"):
        importing.read(folder, keys.trust(other), 1 << 18)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_one_changed_byte_anywhere_is_found(bench: Bench, folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(GloveboxError):
        read(folder, bench)


def test_a_link_in_place_of_a_file_is_not_followed(bench: Bench, folder: Path, tmp_path: Path) -> None:
    (folder / "session.md").rename(tmp_path / "elsewhere")
    (folder / "session.md").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=r"session\.md"):
        read(folder, bench)


def _score(document: dict[str, Any]) -> None:
    document["experiments"][2]["status"] = "keep"


def _tag(document: dict[str, Any]) -> None:
    document["tag"] = "other"


def _order(document: dict[str, Any]) -> None:
    document["experiments"].reverse()


def _extra(document: dict[str, Any]) -> None:
    document["surprise"] = 1


def _rerun(document: dict[str, Any]) -> None:
    document["reruns"][0]["seed"] = 42


@pytest.mark.parametrize(
    ("forge", "told"),
    [
        (_rerun, "reruns of something else"),
        (_score, "verdict does not follow"),
        (_tag, "another tag"),
        (_order, "out of order"),
        (_extra, "malformed rows"),
    ],
)
def test_rows_that_do_not_follow_are_refused_whoever_signed(
    bench: Bench, folder: Path, forge: Callable[[dict[str, Any]], None], told: str
) -> None:
    document = json.loads((folder / "rows.json").read_text())
    forge(document)
    (folder / "rows.json").write_text(json.dumps(document))
    sign_again(folder, bench)
    with pytest.raises(VerifyError, match=told):
        read(folder, bench)


def test_a_branch_with_another_train_py_is_refused_whoever_signed(bench: Bench, folder: Path) -> None:
    line = GitLine(bench.home.line)
    steps = [({"train.py": text.encode()}, "x", "2026-01-01T00:00:00+00:00") for text in (A, B, "evil = 1\n")]
    line.publish("exp/H100/t", steps, ({}, "x", "2026-01-01T00:00:00+00:00"))
    line.bundle("exp/H100/t", folder / "branch.bundle")
    sign_again(folder, bench)
    with pytest.raises(VerifyError, match="is not experiment 4"):
        read(folder, bench)


def test_a_branch_with_more_than_the_kept_files_is_refused(bench: Bench, folder: Path) -> None:
    line = GitLine(bench.home.line)
    steps = [({"train.py": text.encode()}, "x", "2026-01-01T00:00:00+00:00") for text in (A, B, C)]
    steps[1][0]["hook.sh"] = b"evil"
    line.publish("exp/H100/t", steps, ({"results.tsv": b"", "session.md": b""}, "x", "2026-01-01T00:00:00+00:00"))
    line.bundle("exp/H100/t", folder / "branch.bundle")
    sign_again(folder, bench)
    with pytest.raises(VerifyError, match="holds other files"):
        read(folder, bench)


def test_a_description_is_no_command_to_a_forge(bench: Bench, policies: Policies, tmp_path: Path) -> None:
    evil = "[skip ci] closes #12 @org/team"
    bench.ledger._db.execute("UPDATE experiments SET row = json_set(row, '$.description', ?) WHERE id = 2", (evil,))
    export.export(bench.home, bench.stages.policies, "t", "CPU", tmp_path / "evil")
    log = git(bench.home.line, "log", "--format=%B", "exp/CPU/t")
    assert "skip ci" in log
    assert not set("@#[]") & set(log)


def test_a_manifest_of_other_files_is_refused(bench: Bench, folder: Path) -> None:
    sign_again(folder, bench, files={"../../etc/passwd": "0" * 64})
    with pytest.raises(ArtifactError, match="other files"):
        read(folder, bench)


def test_nothing_kept_or_a_folder_in_the_way_is_an_error(
    bench: Bench, folder: Path, policies: Policies, tmp_path: Path
) -> None:
    with pytest.raises(GloveboxError, match="exists already"):
        export.export(bench.home, bench.stages.policies, "t", "H100", folder)
    bench.ledger.begin_run("empty", "2026-01-01T00:00:00+00:00", "demo-1", policies.digest)
    with pytest.raises(GloveboxError, match="nothing was kept"):
        export.export(bench.home, bench.stages.policies, "empty", "H100", tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("NVIDIA L40S", "L40S"),
        ("Tesla T4", "Tesla-T4"),
        ("NVIDIA GB200", "GB200"),
    ],
)
def test_graphics_cards_get_the_names_people_use(name: str, expected: str) -> None:
    assert export.short(name) == expected


@given(st.text(max_size=300))
def test_no_description_leaves_its_code_span_or_its_cell(text: str) -> None:
    cell = session_report.code(text)
    assert cell[0] == cell[-1] == "`"
    assert not set("`|\n\r") & set(cell[1:-1])
    assert 3 <= len(cell) <= 202


def test_hostile_descriptions_are_text_in_the_session_report(bench: Bench, policies: Policies, tmp_path: Path) -> None:
    bench.recorder.ledger._db.execute(
        "UPDATE experiments SET row = json_set(row, '$.description', ?) WHERE id = 2", (EVIL,)
    )
    text = (export.export(bench.home, bench.stages.policies, "t", "CPU", tmp_path / "evil") / "session.md").read_text()
    assert session_report.code(EVIL) in text
    assert "![x]" not in text.replace(session_report.code(EVIL), "")


def test_the_final_configuration_names_what_changed(folder: Path) -> None:
    text = (folder / "session.md").read_text()
    assert "| `LR` | `1` | `2` |" in text
    assert "| `DEPTH` | `2` | `3` |" in text
    assert "2.0000 → 1.2000 in 4 experiments" in text


def test_a_tag_with_a_veto_is_imported_and_its_wins_are_those_of_the_line(night: Night, tmp_path: Path) -> None:
    """`verify` was content, and the import said that the verdict did not follow."""
    for true in (1.9, 1.2):
        night.run(true)
    steering.ask(night.home, "t", "veto", "2026-01-01T00:00:00+00:00", experiment=3)
    night.bench.restore()
    night.run(1.8)
    out = export.export(night.home, night.loop.policies, "t", "H100", tmp_path / "out")
    found = importing.read(out, keys.trust(night.home), 1 << 20)
    assert (found.best.id, found.checked["verdicts"]) == (5, 5)
    assert [(one.verb, one.experiment) for one in found.rows.steers] == [("veto", 3)]
    rows = found.rows
    assert replay(rows.decision, rows.experiments, rows.reruns)[
        0
    ]  # the control: without the request it does not follow
    wins = (out / "session.md").read_text().split("## Top wins")[1].split("\n## ")[0]
    assert "to 1.8" in wins
    assert "to 1.2" not in wins
