"""Text for the demo: documents in a language made up from a seed, the same on every machine. TRUSTED, pure.

Nobody knows it by heart: a model has to learn spelling, word order, agreement, topics and who a document is about,
within seconds. Whoever draws the same documents needs the same seed, and only `random.Random.random()` is used, whose
sequence Python promises to keep ("Notes on Reproducibility", docs.python.org/3/library/random.html).
"""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Iterator

_LANGUAGE = b"glovebox demo 1"  # the language itself; documents in it have a seed of their own
_ONSETS = (
    "b", "br", "c", "ch", "d", "dr", "f", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "pl", "r", "s", "st", "t", "v",
    "w", "z",
)  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ou")
_CODAS = ("", "", "", "l", "m", "n", "nd", "r", "rt", "s", "t", "x")
_TOPICS, _OF_TOPIC = 24, 40  # topics, and nouns that each prefers
_SENTENCES = (
    "The {adjective} {noun} {verb}ed the {noun}.",
    "{name} {verb}ed {number} {noun}s, and the {noun} was {adjective}.",
    "When the {noun}s {verb}, {name} {adverb} {verb}s.",
    '"{name} has {verb}ed it," said {name}.',
    "No {noun} of the {noun} is as {adjective} as {name}'s {noun}.",
    "If a {noun} {verb}s, then every {noun} {verb}s ({adverb}).",
    "It was {adjective}: {name} and the {noun} {verb}ed {adverb}.",
    "{name} {verb}s; the {noun}s {verb} too.",
    "Between {number} and {number} {noun}s {verb}ed near the {adjective} {noun}.",
    "Then {name} {adverb} {verb}ed a {noun}, a {noun} and a {noun}.",
)


class Language:
    """Words by kind, each kind by its rank: the n-th is about 1/n as frequent as the first (Zipf)."""

    def __init__(self) -> None:
        draw = random.Random(_LANGUAGE)  # noqa: S311 - no secret
        counts = {"noun": 900, "verb": 400, "adjective": 300, "adverb": 100, "name": 120}
        self.words: dict[str, list[str]] = {}
        seen = set[str]()
        for kind, count in counts.items():
            end = "ly" if kind == "adverb" else ""
            made = list[str]()
            while len(made) < count:
                word = "".join(_syllable(draw) for _ in range(1 + int(draw.random() * 2.6))) + end
                if word not in seen and len(word) > 2:
                    seen.add(word)
                    made.append(word.capitalize() if kind == "name" else word)
            self.words[kind] = made
        self._ranks = {
            kind: list(itertools.accumulate(1 / (2 + rank) for rank in range(n))) for kind, n in counts.items()
        }
        nouns = self.words["noun"]
        self._topics = [[nouns[int(draw.random() * len(nouns))] for _ in range(_OF_TOPIC)] for _ in range(_TOPICS)]

    def documents(self, seed: bytes, characters: int, size: int) -> Iterator[str]:
        """Documents of about `size` characters each, so many characters in all."""
        draw = random.Random(seed)  # noqa: S311 - nobody sees enough to go on
        while characters > 0:
            text = self._document(draw, size)
            characters -= len(text)
            yield text

    def _document(self, draw: random.Random, size: int) -> str:
        topic = self._topics[int(draw.random() * _TOPICS)]
        names = [self._word(draw, "name") for _ in range(3)]
        lines, line, length = list[str](), list[str](), 0
        while length < size:
            sentence = self._sentence(draw, topic, names)
            line.append(sentence)
            length += len(sentence) + 1
            if draw.random() < 0.2:
                lines.append(" ".join(line))
                line = []
        return "\n".join([*lines, " ".join(line)]).strip()

    def _sentence(self, draw: random.Random, topic: list[str], names: list[str]) -> str:
        parts = _SENTENCES[int(draw.random() ** 2 * len(_SENTENCES))].replace("}", "{").split("{")
        for at in range(1, len(parts), 2):
            kind = parts[at]
            if kind == "number":
                parts[at] = str(2 + int(draw.random() ** 3 * 98))
            elif kind == "name":
                parts[at] = names[int(draw.random() * len(names))]
            elif kind == "noun" and draw.random() < 0.7:
                parts[at] = topic[int(draw.random() ** 2 * len(topic))]
            else:
                parts[at] = self._word(draw, kind)
        return "".join(parts)

    def _word(self, draw: random.Random, kind: str) -> str:
        ranks = self._ranks[kind]
        return self.words[kind][bisect.bisect(ranks, draw.random() * ranks[-1])]


def _syllable(draw: random.Random) -> str:
    return "".join(part[int(draw.random() * len(part))] for part in (_ONSETS, _VOWELS, _CODAS))
