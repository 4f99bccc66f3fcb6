"""Notes and ideas stay bounded and visible, whatever agents write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.airlock import invisible
from runner.core.airlock.notebook import IDEA_CHARS, IDEAS, NOTES_BYTES, Notebook, NotebookError

TEXT = st.text(max_size=400)
CHANGES = st.one_of(
    st.tuples(st.just("written"), TEXT),
    st.tuples(st.just("edited"), TEXT, TEXT),
    st.tuples(st.just("with_idea"), TEXT),
    st.tuples(st.just("closed"), st.integers(-1, 60), st.sampled_from(["done", "drop"])),
)


@given(st.lists(CHANGES, max_size=80))
def test_whatever_is_written_it_is_bounded_visible_and_reads_back(changes: list[tuple[object, ...]]) -> None:
    book, taken = Notebook(), 0
    for name, *args in changes:
        try:
            book = getattr(book, str(name))(*args)
        except NotebookError:
            continue
        taken += 1
    assert len(book.notes.encode()) <= NOTES_BYTES
    assert len(book.ideas) <= IDEAS
    assert all(len(idea.text) <= IDEA_CHARS and idea.text.isprintable() for idea in book.ideas)
    assert not any(list(invisible.hidden(text)) for text in (book.notes, *(idea.text for idea in book.ideas)))
    assert len({idea.id for idea in book.ideas}) == len(book.ideas)
    assert book.added == len(book.ideas) + book.done + book.dropped
    assert Notebook.model_validate_json(book.model_dump_json()) == book


def test_the_largest_notes_fit_and_a_byte_more_does_not() -> None:
    assert Notebook().written("x" * NOTES_BYTES).notes
    with pytest.raises(NotebookError, match="notes_too_large"):
        Notebook().written("é" * (NOTES_BYTES // 2) + "x")


def test_an_edit_needs_its_text_once() -> None:
    book = Notebook().written("a b b")
    assert book.edited("a", "c").notes == "c b b"
    for old in ("b", "", "z"):
        with pytest.raises(NotebookError, match="not_once"):
            book.edited(old, "x")


def test_a_lone_surrogate_is_no_text() -> None:
    with pytest.raises(NotebookError, match="not_utf8"):
        Notebook().written("\ud800")


def test_the_list_of_ideas_ends_and_numbers_are_never_given_again() -> None:
    book = Notebook()
    for number in range(IDEAS):
        book = book.with_idea(f"idea {number}")
    with pytest.raises(NotebookError, match="too_many_ideas"):
        book.with_idea("one more")
    book = book.closed(3, "done").with_idea("in its place")
    assert [idea.id for idea in book.ideas if idea.text == "in its place"] == [IDEAS + 1]
    with pytest.raises(NotebookError, match="no_such_idea"):
        book.closed(3, "drop")
