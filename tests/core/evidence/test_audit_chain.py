"""The audit chain notices every edit but a clean cut at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.core.base.errors import VerifyError
from runner.core.evidence import audit_chain


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    log = audit_chain.AuditLog(path)
    for number in range(5):
        log.append("finished", {"experiment": number, "val_bpb": 2.0 - number})
    return path


def test_an_intact_chain_verifies_and_can_be_continued(chain: Path) -> None:
    assert len(audit_chain.verify(chain)) == 5
    audit_chain.AuditLog(chain).append("more", {})
    assert [e["n"] for e in audit_chain.verify(chain)] == list(range(6))


def lines(chain: Path) -> list[bytes]:
    return chain.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda x: [x[0], x[1].replace(b'"val_bpb":1.0', b'"val_bpb":0.1'), *x[2:]],
        lambda x: [x[0], *x[2:]],
        lambda x: [x[0], x[2], x[1], *x[3:]],
        lambda x: [x[0], x[1], x[1], *x[2:]],
        lambda x: [b"{}\n", *x[1:]],
        lambda x: [*x, b"not json\n"],
        lambda x: x[1:],
    ],
    ids=["edit", "drop", "reorder", "repeat", "replace", "append", "drop-first"],
)
def test_tampering_is_noticed_with_its_line(chain: Path, tamper: object) -> None:
    chain.write_bytes(b"".join(tamper(lines(chain))))  # type: ignore[operator]
    with pytest.raises(VerifyError, match=r"audit\.jsonl:\d"):
        audit_chain.verify(chain)
    with pytest.raises(VerifyError):
        audit_chain.AuditLog(chain)


def test_entries_of_another_shape_are_not_taken_for_experiments(chain: Path) -> None:
    log = audit_chain.AuditLog(chain)
    log.append("finished", {"tag": "t", "id": 7})
    log.append("finished", {"tag": ["t"], "id": "7"})
    assert list(audit_chain.by_name(audit_chain.read(chain), "finished")) == [("t", 7)]


def test_a_torn_last_line_is_cut_off_when_writing_resumes(chain: Path) -> None:
    chain.write_bytes(chain.read_bytes()[:-20])
    log = audit_chain.AuditLog(chain)
    log.append("resumed", {})
    assert [e["kind"] for e in audit_chain.verify(chain)] == ["finished"] * 4 + ["resumed"]


def test_half_a_line_is_waited_for_beside_a_writer_and_refused_without_one(chain: Path) -> None:
    whole = chain.read_bytes()
    chain.write_bytes(whole[:-20])
    follower = audit_chain.Follower(chain)
    assert [e["n"] for e in follower.new(growing=True)] == [0, 1, 2, 3]
    with pytest.raises(VerifyError, match=r"audit\.jsonl:5: .*broken"):
        list(follower.new())
    chain.write_bytes(whole)
    assert [e["n"] for e in follower.new(growing=True)] == [4]


def test_a_line_without_end_is_no_half_line_whoever_writes(chain: Path) -> None:
    """Behind one everything could be, while a lock was held."""
    with chain.open("ab") as file:
        file.write(b"[" * (audit_chain.MAX_LINE + 1))
    with pytest.raises(VerifyError, match=r"audit\.jsonl:6: .*broken"):
        list(audit_chain.Follower(chain).new(growing=True))


def test_a_chain_that_was_cut_while_it_was_read_is_refused(chain: Path) -> None:
    follower = audit_chain.Follower(chain)
    assert len(list(follower.new())) == 5
    assert list(follower.new()) == []  # the control
    for left in (chain.read_bytes()[:-20], b""):
        chain.write_bytes(left)
        with pytest.raises(VerifyError, match="cut while it was read"):
            list(follower.new(growing=True))
    chain.unlink()
    with pytest.raises(VerifyError, match="cut while it was read"):
        list(follower.new(growing=True))
