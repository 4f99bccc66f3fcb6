"""The lowest of many numbers that move a little with every candidate. TRUSTED, pure.

What is believed of a file is a mean over guesses, and no lower than the lowest of them, its floor. So files are looked
at by their floors, and no further than to the first that is above what was found: a few of a night's thousands.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable

_ROUNDED = 1e-9  # a mean of numbers may be this much below the lowest of them, and relative to it


class Floors:
    """Files by their floors."""

    def __init__(self) -> None:
        self._floors: dict[int, float] = {}
        self._sorted: list[tuple[float, int]] = []
        self._gone: set[int] = set()

    def put(self, number: int, floor: float) -> None:
        """A new file, or a new floor of one; what is gone stays so."""
        if number in self._gone or self._floors.get(number) == floor:
            return
        self._take(number)
        self._floors[number] = floor
        bisect.insort(self._sorted, (floor, number))

    def drop(self, number: int) -> None:
        """Of this file nothing is asked any more."""
        self._gone.add(number)
        self._take(number)

    def lowest(self, of: Callable[[int], float]) -> float:
        """The lowest `of` any file, where none is below its file's floor; ValueError if there is no file."""
        found: float | None = None
        for floor, number in self._sorted:
            if found is not None and floor - _ROUNDED * max(1.0, abs(floor)) > found:
                break
            value = of(number)
            found = value if found is None or value < found else found
        if found is None:
            raise ValueError("no file")
        return found

    def _take(self, number: int) -> None:
        floor = self._floors.pop(number, None)
        if floor is not None:
            del self._sorted[bisect.bisect_left(self._sorted, (floor, number))]
