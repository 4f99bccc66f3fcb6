"""Many files at a time. TRUSTED."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
S = TypeVar("S")


def in_parallel(action: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """`action` on every item, one thread a core; hashing and reading release the interpreter. Largest first is best."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(action, items))
