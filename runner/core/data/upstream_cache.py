"""Reads karpathy/autoresearch's cache without unpickling it. TRUSTED reader of an untrusted folder.

Its tokenizer is a pickled tiktoken Encoding. Unpickling runs whatever the file says, and that folder is shared
and writable; so the pickle's operations are read as data (pickletools) by a small machine that knows how to
build strings, bytes, numbers and one dictionary, and imports and calls nothing. A file that asks for more than
an Encoding's four fields is refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner.core.artifacts.profiles import SPECIAL_TOKENS, SPLIT_PATTERN, Profile
from runner.core.base.errors import ArtifactError
from runner.core.base.files import open_plain
from runner.core.data.pack import Ranks

MAX_BYTES = 2 << 20  # upstream's has about 150 KB
FIELDS = {"name", "pat_str", "mergeable_ranks", "special_tokens"}
_CLASS = ("tiktoken.core", "Encoding")
_VALUES = {
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
    "BININT", "BININT1", "BININT2",
}  # fmt: skip


class _Encoding:
    """What an Encoding would be; holds its state."""

    state: Any = None


def ranks(folder: Path, profile: Profile) -> Ranks:
    """The merge ranks of tokenizer/tokenizer.pkl in an upstream cache; raises ArtifactError."""
    path = folder / "tokenizer" / "tokenizer.pkl"
    try:
        with open_plain(path) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ArtifactError(
            f"cannot be read: {error.strerror}", where=str(path), fix="run upstream's prepare.py"
        ) from None
    if len(data) > MAX_BYTES:
        raise _refused(path, "larger than a tokenizer")
    return _checked(path, _state(path, data), profile)


def _checked(path: Path, state: Any, profile: Profile) -> Ranks:
    if not isinstance(state, dict) or set(state) != FIELDS:
        raise _refused(path, "not the four fields of an Encoding")
    found = state["mergeable_ranks"]
    wanted = profile.vocab_size - len(SPECIAL_TOKENS)
    if not isinstance(found, dict) or len(found) != wanted:
        raise _refused(path, f"not {wanted} tokens")
    plain = all(
        isinstance(token, bytes) and 0 < len(token) <= 256 and type(rank) is int for token, rank in found.items()
    )
    if not plain or sorted(found.values()) != list(range(wanted)):
        raise _refused(path, "ranks that are not a numbering of byte strings")
    if not {bytes([i]) for i in range(256)} <= set(found):
        raise _refused(path, "a byte without a token")
    if state["pat_str"] != SPLIT_PATTERN:
        raise _refused(path, "another split pattern")
    if state["special_tokens"] != {name: wanted + i for i, name in enumerate(SPECIAL_TOKENS)}:
        raise _refused(path, "other special tokens")
    return found


def _state(path: Path, data: bytes) -> Any:
    """The state the pickle would give its Encoding."""
    machine = _Machine()
    try:
        for operation, argument, _ in pickletools.genops(data):
            if operation.name == "STOP":
                break
            machine.step(operation.name, argument)
        (result,) = machine.stack
    except (ValueError, IndexError, KeyError, TypeError, AssertionError) as error:
        reason = error.args[0] if isinstance(error, _Refused) else "malformed"
        raise _refused(path, str(reason)) from None
    return result.state if isinstance(result, _Encoding) else None


class _Refused(ValueError):
    pass


class _Machine:
    """A pickle machine that can do nothing but build values."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []  # where groups of items begin
        self.kept: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Carry out one operation; raises _Refused for any that could do more."""
        if name in ("PROTO", "FRAME"):
            return
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _OPERATIONS:
            _OPERATIONS[name](self, argument)
        else:
            raise _Refused(f"operation {name}")

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.named(f"{module} {name}")

    def named(self, argument: Any) -> None:
        if tuple(str(argument).split(" ", 1)) != _CLASS:
            raise _Refused("a class that is not tiktoken's Encoding")
        self.stack.append(_Encoding)

    def new(self, _: Any) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if arguments != () or kind is not _Encoding:
            raise _Refused("an object that is not an Encoding")
        self.stack.append(_Encoding())

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Encoding):
            raise _Refused("state of something else")
        self.stack[-1].state = state

    def mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def items(self, _: Any) -> None:
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        self.put(dict(zip(items[::2], items[1::2], strict=True)))

    def item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.put({key: value})

    def put(self, items: dict[Any, Any]) -> None:
        if type(self.stack[-1]) is not dict or items.keys() & self.stack[-1].keys():
            raise _Refused("items of something else, or twice")
        self.stack[-1].update(items)

    def memoize(self, _: Any) -> None:
        self.kept[len(self.kept)] = self.stack[-1]

    def keep(self, argument: Any) -> None:
        self.kept[int(argument)] = self.stack[-1]

    def recall(self, argument: Any) -> None:
        self.stack.append(self.kept[int(argument)])


_OPERATIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "STACK_GLOBAL": _Machine.stack_global,
    "GLOBAL": _Machine.named,
    "NEWOBJ": _Machine.new,
    "BUILD": _Machine.build,
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "MARK": _Machine.mark,
    "SETITEMS": _Machine.items,
    "SETITEM": _Machine.item,
    "MEMOIZE": _Machine.memoize,
    "BINPUT": _Machine.keep,
    "LONG_BINPUT": _Machine.keep,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
}


def _refused(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"not upstream's tokenizer: {what}", where=str(path), fix="pass --shards to train a new one")
