"""The one free text that comes back to an agent: its own description, on one line and cut. TRUSTED, hostile input."""

from __future__ import annotations

import unicodedata

from runner.core.airlock import invisible

_NO_TEXT = ("Cc", "Cs", "Cn")  # Unicode categories; what is invisible besides is in invisible.py


def clean(text: str, chars: int) -> str:
    """A one-line description of at most `chars` characters."""
    visible = "".join(c if unicodedata.category(c) not in _NO_TEXT else " " for c in invisible.blanked(text))
    # Cut first: what was an emoji may end in the middle.
    return " ".join(invisible.blanked(" ".join(visible.split())[:chars]).split()) or "(no description)"
