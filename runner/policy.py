"""Loads policies/*.yaml: the settings a security reviewer reads. TRUSTED, fails closed.

Refused, each with file, line, key and remedy: a missing or empty file, more than 64 KiB, duplicate keys,
aliases and tags, unknown keys, wrong types (nothing is coerced) and values wider than the schema allows.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from runner.errors import PolicyError

MAX_BYTES = 64 << 10

Bytes = Annotated[int, Field(ge=1 << 10, le=1 << 40)]
Summary = Literal[
    "training_seconds", "peak_vram_mb", "mfu_percent", "total_tokens_M", "num_steps", "num_params_M", "depth"
]  # upstream's closing summary without val_bpb: a claimed score never crosses
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]


class Strict(BaseModel):
    """Base of every policy section: unknown keys refused, no coercion, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Box(Strict):
    """Resource ceilings of one container role."""

    image: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._/:@-]{0,200}$")]
    uid: Annotated[int, Field(ge=1000, le=2_000_000_000)]
    memory_bytes: Bytes
    cpus: Annotated[float, Field(gt=0, le=256)]
    pids: Annotated[int, Field(ge=16, le=32768)]
    open_files: Annotated[int, Field(ge=64, le=1 << 20)]
    file_bytes: Bytes
    tmp_bytes: Bytes
    exec_cache_bytes: Annotated[int, Field(ge=0, le=1 << 36)]
    shm_bytes: Bytes
    output_bytes: Bytes
    max_seconds: Annotated[float, Field(gt=0, le=7 * 86_400)]


class Sandbox(Strict):
    """policies/sandbox.yaml."""

    runtime: Literal["runc", "runsc"]
    minimum_engine: Annotated[str, Field(pattern=r"^(2[0-9]|[3-9][0-9])\.\d+$")]
    trainer: Box
    evaluator: Box
    agent: Box

    @model_validator(mode="after")
    def _separate(self) -> Sandbox:
        if self.agent.uid in (self.trainer.uid, self.evaluator.uid):
            raise ValueError("the agent needs a uid of its own")
        return self


class Agent(Strict):
    """policies/agent.yaml: what the agent may ask of the runner."""

    train_py_bytes: Annotated[int, Field(ge=1 << 10, le=1 << 20)]
    description_chars: Annotated[int, Field(ge=16, le=1000)]
    history_rows: Annotated[int, Field(ge=1, le=1000)]
    session_seconds: Annotated[float, Field(gt=0, le=7 * 86_400)]


class Decision(Strict):
    """policies/decision.yaml."""

    rule: Literal["upstream", "margin"]
    minimum_gain_bpb: Annotated[float, Field(ge=0, le=1)]
    simplicity_band_bpb: Annotated[float, Field(ge=0, le=1)]
    startup_seconds: Annotated[float, Field(gt=0, le=3600)]
    hand_over_seconds: Annotated[float, Field(gt=0, le=3600)]
    evaluation_seconds: Annotated[float, Field(gt=0, le=86_400)]


class EvaluatorLimits(Strict):
    """Ceilings of one forward pass; trainer/evaluator/program.py Limits."""

    weight_bytes: Bytes
    peak_bytes: Bytes
    elements: Annotated[int, Field(ge=1, le=1 << 40)]
    total_elements: Annotated[int, Field(ge=1, le=1 << 44)]
    flops: Annotated[float, Field(gt=0, le=1e18)]


class Evaluator(Strict):
    """policies/evaluator.yaml."""

    limits: EvaluatorLimits
    accept: Annotated[list[Literal["proved", "audited"]], Field(min_length=1, max_length=2)]
    audit_trials: Annotated[int, Field(ge=1, le=100_000)]
    audit_trials_unproved: Annotated[int, Field(ge=1000, le=10_000_000)]
    threads: Annotated[int, Field(ge=1, le=256)]


class Metric(Strict):
    """One number that may cross from trainer to agent: its range and how it is rounded."""

    minimum: Annotated[float, Field(ge=-1e9)]
    maximum: Annotated[float, Field(le=1e9)]
    digits: Annotated[int, Field(ge=0, le=6)]

    @model_validator(mode="after")
    def _ordered(self) -> Metric:
        if not self.minimum < self.maximum:
            raise ValueError("minimum must be below maximum")
        return self


class Metrics(Strict):
    """policies/metrics.yaml."""

    telemetry_bytes: Annotated[int, Field(ge=1 << 10, le=16 << 20)]
    line_bytes: Annotated[int, Field(ge=64, le=16 << 10)]
    lines: Annotated[int, Field(ge=1, le=100_000)]
    curve_points: Annotated[int, Field(ge=0, le=256)]
    loss: Metric
    step: Metric
    summaries: dict[Summary, Metric]


class Errors(Strict):
    """policies/errors.yaml: exception classes whose name may be told to the agent."""

    classes: Annotated[list[Name], Field(min_length=1, max_length=200)]


_FILES: dict[str, type[Strict]] = {
    "sandbox": Sandbox,
    "agent": Agent,
    "decision": Decision,
    "evaluator": Evaluator,
    "metrics": Metrics,
    "errors": Errors,
}


class Policies(Strict):
    """All policy files and the SHA-256 over their bytes, which receipts carry."""

    sandbox: Sandbox
    agent: Agent
    decision: Decision
    evaluator: Evaluator
    metrics: Metrics
    errors: Errors
    digest: str


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
    return _parse(path, _read(path), model)


def _parse(path: Path, text: str, model: type[ModelT]) -> ModelT:
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


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()[: MAX_BYTES + 1]
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


def load(folder: Path) -> Policies:
    """Every policy file in `folder`, and the digest of exactly the bytes they were parsed from."""
    texts = {name: _read(folder / f"{name}.yaml") for name in _FILES}
    digest = hashlib.sha256()
    for name, text in texts.items():
        digest.update(f"{name} {len(text.encode())}\n{text}".encode())
    parsed = {name: _parse(folder / f"{name}.yaml", texts[name], model) for name, model in _FILES.items()}
    return Policies(**parsed, digest=digest.hexdigest())  # type: ignore[arg-type] # each file's own model
