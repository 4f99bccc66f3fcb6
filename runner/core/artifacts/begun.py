"""Under which policies a recorded tag was begun, with the kernels and compiled code that are here. TRUSTED."""

from __future__ import annotations

from collections.abc import Iterable

from runner.core.artifacts import store
from runner.core.base.home import Home
from runner.core.policy import policy_files
from runner.core.policy.of_tag import known, of_tag
from runner.core.policy.policy_files import Policies


def under(home: Home, terms: str, some: Iterable[Policies]) -> Policies | None:
    """Those of `some` policies with these terms (the ledger's `policy` of a tag), None if they are gone."""
    return of_tag(some, terms, store.kernels_here(home), store.caches(home))


def under_or_now(home: Home, terms: str) -> Policies:
    """The same, and where they are gone those in force; raises PolicyError."""
    return under(home, terms, known(home.policies)) or policy_files.load(*home.policies)
