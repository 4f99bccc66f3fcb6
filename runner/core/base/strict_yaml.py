"""Reads one YAML file a person wrote and a reviewer reads, strictly, into a frozen model. TRUSTED, fails closed.

Refused, each with file, line, key and remedy: a missing or empty file, more than 64 KiB, duplicate keys,
aliases and tags, unknown keys, wrong types (nothing is coerced) and values wider than the schema allows.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from runner.core.base.errors import PolicyError

MAX_BYTES = 64 << 10


class Strict(BaseModel):
    """Base of every policy section: unknown keys refused, no coercion, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys, aliases and explicit tags."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _fault(event.start_mark, "alias", "write the value out")
        if getattr(event, "anchor", None) is not None or not _plain(event):
            raise _fault(event.start_mark, "anchor or tag", "write the plain value")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise _fault(key.start_mark, "key that is not a string", "use a plain name")
            if key.value in seen:
                raise _fault(key.start_mark, f"duplicate key {key.value!r}", "keep one of the two")
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _plain(event: Any) -> bool:
    return getattr(event, "tag", None) is None


# YAML 1.1 reads 0200000 as octal, 1:30 as ninety and 2024-01-01 as a date. Keep plain decimals only.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag.rsplit(":", 1)[1] in ("bool", "null", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(0|[1-9][0-9]*)\.[0-9]+(e[-+]?[0-9]+)?$"), list("-+0123456789")
)


class _Fault(Exception):
    def __init__(self, line: int, what: str, fix: str) -> None:
        super().__init__(what)
        self.line, self.what, self.fix = line, what, fix


def _fault(mark: Any, what: str, fix: str) -> _Fault:
    return _Fault(mark.line + 1, what, fix)


ModelT = TypeVar("ModelT", bound=Strict)


def load_yaml(path: Path, model: type[ModelT]) -> ModelT:
    """One policy file as its model; raises PolicyError."""
    return parse(path, read(path), model)


def parse(path: Path, text: str, model: type[ModelT]) -> ModelT:
    """`text`, the content of `path`, as its model; raises PolicyError."""
    try:
        raw = yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a restricted SafeLoader
    except _Fault as fault:
        raise PolicyError(fault.what, where=f"{path}:{fault.line}", fix=fault.fix) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise PolicyError("not valid YAML", where=f"{path}:{line}", fix="check indentation and quotes") from None
    if raw is None:
        raise PolicyError("the file is empty", where=str(path), fix="restore it from the repository's policies/")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        line = _line_of(text, first["loc"])
        raise PolicyError(f"{key}: {first['msg']}", where=f"{path}:{line}", fix=_remedy(first["type"], key)) from None


def read(path: Path) -> str:
    """The capped UTF-8 text of a policy file; raises PolicyError."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a pipe is not waited for
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise PolicyError("no such policy file", where=str(path), fix="restore the repository's policies/") from None
    except OSError as error:
        raise PolicyError(f"cannot be read: {error.strerror}", where=str(path), fix="check its permissions") from None
    if len(data) > MAX_BYTES:
        raise PolicyError(f"larger than {MAX_BYTES} bytes", where=str(path), fix="split or shorten it")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise PolicyError("not UTF-8", where=str(path), fix="save it as UTF-8") from None


def _line_of(text: str, loc: tuple[int | str, ...]) -> int:
    """Line of the deepest mapping key on the error's path; 1 if it is absent from the file."""
    node, line = yaml.compose(text, Loader=yaml.SafeLoader), 1
    for part in loc:
        if not isinstance(node, yaml.MappingNode):
            break
        for key, value in node.value:
            if key.value == part:
                line, node = key.start_mark.line + 1, value
                break
        else:
            break
    return line


def _remedy(kind: str, key: str) -> str:
    if kind == "extra_forbidden":
        return f"remove {key}, or check its spelling"
    if kind == "missing":
        return f"add {key}"
    return f"change {key} to an allowed value"
