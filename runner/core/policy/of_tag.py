"""The policies a tag was begun under: those in force, or with files as an earlier version shipped them. TRUSTED."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from runner.core.policy.policy_files import Policies, load, terms


def known(folders: tuple[Path, Path]) -> Iterator[Policies]:
    """Those in force first, then older ones; `folders`: the bench's own policies, then the shipped.

    A new version may ship another decision.yaml; a tag goes on under the one it was begun with (policies/past, six
    complete files a version). The digest stays that of the policies in force. Raises PolicyError.
    """
    own, shipped = folders
    now = load(own, shipped)
    yield now
    for past in sorted((shipped / "past").glob("*/"), reverse=True):
        yield load(own, past, shipped).model_copy(update={"digest": now.digest})


def of_tag(some: Iterable[Policies], begun: str, kernels: str | None, caches: Sequence[str]) -> Policies | None:
    """The first of them whose terms are `begun`, None if they are gone."""
    return next((one for one in some if begun in {terms(one, kernels, cache) for cache in (*caches, None)}), None)
