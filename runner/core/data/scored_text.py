"""Documents that may be scored, as many as are needed: the same ones, whatever came first. TRUSTED, pure."""

from __future__ import annotations

from dataclasses import dataclass, field

PARTS, LEAST_CHARS = 50, 1000  # a document is at most so small a part of what is scored, and is not cut below that


@dataclass
class Kept:
    """Of the documents of a side those first in the order of their keys, so many bytes of them; each once.

    Which they are depends on nothing else: what was left out once stays out, and with it whatever comes after it.
    """

    most: int
    texts: dict[int, str] = field(default_factory=dict)
    times: dict[int, int] = field(default_factory=dict)  # that each of them was there
    size: int = 0
    seen: int = 0
    end: int = 1 << 64  # the first key that is left out

    @property
    def repeated(self) -> int:
        """How often one of them was there already."""
        return sum(self.times.values()) - len(self.times)

    def add(self, order: int, text: str) -> None:
        """A document; a long one gives its beginning, for what is scored is not of one book.

        Of two that differ in white space and capitals alone the smaller is kept, whichever came first.
        """
        self.seen += 1
        if order >= self.end:
            return
        text = text[: max(LEAST_CHARS, self.most // PARTS)]
        there = self.texts.get(order)
        if there is None or text < there:
            self.size += len(text.encode()) - len((there or "").encode())
            self.texts[order] = text
        self.times[order] = self.times.get(order, 0) + 1
        if self.size > 2 * self.most:
            self.settle()

    def settle(self) -> None:
        """Leave out what is too much."""
        for order in sorted(self.texts, reverse=True):
            if self.size <= self.most:
                break
            self.size -= len(self.texts.pop(order).encode())
            del self.times[order]
            self.end = order

    def documents(self) -> list[str]:
        """In the order of their keys."""
        return [self.texts[order] for order in sorted(self.texts)]
