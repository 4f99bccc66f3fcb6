"""The policies a tag was begun under: those in force, or with files as an earlier version shipped them. TRUSTED."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.core.policy.policy_files import Policies, load, terms


def of_tag(folders: tuple[Path, Path], begun: str, kernels: str | None, caches: Sequence[str]) -> Policies | None:
    """Those whose terms are `begun`, None if they are gone; `folders`: the bench's own policies, then the shipped.

    A new version may ship another decision.yaml; a tag goes on under the one it was begun with (policies/past). The
    digest stays that of the policies in force. Raises PolicyError.
    """
    own, shipped = folders
    now = load(own, shipped)
    for past in (None, *sorted((shipped / "past").glob("*/"), reverse=True)):
        found = now if past is None else load(own, past, shipped)
        if begun in {terms(found, kernels, cache) for cache in (*caches, None)}:
            return found.model_copy(update={"digest": now.digest})
    return None
