"""What a tag's rows say of its line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.core.base.values import Experiment, Status
from runner.core.decision import standing
from tests.samples import experiment


@given(st.lists(st.tuples(st.booleans(), st.one_of(st.none(), st.integers(1, 12))), max_size=12))
def test_what_was_taken_out_is_the_same_row_by_row_and_at_once(steps: list[tuple[bool, int | None]]) -> None:
    """A keep may be made of the file before any earlier one; what was between them is out."""
    rows: list[Experiment] = []
    out = standing.TakenOut()
    for number, (kept, veto) in enumerate(steps, 1):
        status = Status.KEEP if kept else Status.DISCARD
        rows.append(experiment(number, status=status, veto=veto if kept and veto != number else None))
        left = {row.id for row in standing.line(rows)}
        expected = {row.id for row in rows if row.status is Status.KEEP} - left
        assert {row.id for row in out.of(rows)} == expected == {row.id for row in standing.TakenOut().of(rows)}
    assert out.of(rows) == out.of(rows)
