"""The models of policies/*.yaml: the settings a security reviewer reads. TRUSTED, fails closed.

How a file is read, and what is refused, is in strict_yaml.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from runner.core.base.errors import PolicyError
from runner.core.base.launching import MAX_SEATS
from runner.core.base.strict_yaml import Strict, parse
from runner.core.policy import walls
from runner.core.policy.broker import Broker, Model
from runner.core.policy.error_templates import Template
from runner.core.policy.walls import Walls

Summary = Literal[
    "training_seconds", "peak_vram_mb", "mfu_percent", "total_tokens_M", "num_steps", "num_params_M", "depth"
]  # upstream's closing summary without val_bpb: a claimed score never crosses
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]


class Agent(Strict):
    """policies/agent.yaml: what the agent may ask of the runner, and how it goes about its work."""

    train_py_bytes: Annotated[int, Field(ge=1 << 10, le=1 << 20)]
    description_chars: Annotated[int, Field(ge=16, le=1000)]
    history_rows: Annotated[int, Field(ge=1, le=1000)]
    session_seconds: Annotated[float, Field(gt=0, le=7 * 86_400)]
    model: Model
    fallback_models: Annotated[list[Model], Field(max_length=5, default_factory=list)]
    max_tokens: Annotated[int, Field(ge=256, le=128_000)]
    thinking: Literal["adaptive", "off"] = "off"
    effort: Literal["default", "low", "medium", "high", "xhigh", "max"] = "default"
    turns: Annotated[int, Field(ge=2, le=500)]
    repairs: Annotated[int, Field(ge=0, le=10)]
    proposers: Annotated[int, Field(ge=1, le=MAX_SEATS)] = 1
    shown_rows: Annotated[int, Field(ge=1, le=200)]
    context_chars: Annotated[int, Field(ge=10_000, le=10_000_000)]
    source_chars: Annotated[int, Field(ge=1000, le=400_000)]
    command: Annotated[list[Annotated[str, Field(min_length=1, max_length=4000)]], Field(max_length=20)]


class Audit(Strict):
    """policies/audit.yaml."""

    witness: Annotated[str, Field(pattern=r"^(/[^\x00-\x1f]{1,1000})?$")]


class Notify(Strict):
    """policies/notify.yaml: which events a webhook is told of; its address is a secret and lies elsewhere."""

    enabled: bool
    events: Annotated[
        list[Literal["best", "crash_streak", "budget_end", "tamper", "contradicted", "ended"]], Field(max_length=6)
    ]
    format: Literal["plain", "slack", "discord", "ntfy"] = "plain"
    morning: Annotated[str, Field(pattern=r"^(([01]\d|2[0-3]):[0-5]\d)?$")] = ""
    crash_streak: Annotated[int, Field(ge=2, le=1000)]
    seconds: Annotated[float, Field(gt=0, le=60)]


class EarlyStop(Strict):
    """When a run that trains is given up; runner/core/decision/early_stop.py."""

    enabled: bool
    looks: Annotated[list[Annotated[float, Field(ge=0.05, le=0.95)]], Field(min_length=1, max_length=10)]
    alpha: Annotated[float, Field(ge=0.0001, le=0.1)]
    runs: Annotated[int, Field(ge=5, le=1000)]
    audit: Annotated[float, Field(ge=0.02, le=1)]

    @model_validator(mode="after")
    def _in_order(self) -> EarlyStop:
        if self.looks != sorted(set(self.looks)):
            raise ValueError("looks must rise")
        return self


class Decision(Strict):
    """policies/decision.yaml."""

    rule: Literal["odds", "paired", "upstream"]
    scale_runs: Annotated[int, Field(ge=2, le=20)] = 2
    keep_from_sigmas: Annotated[float, Field(ge=0, le=10)] = 0.15
    verify_from_sigmas: Annotated[float, Field(ge=0, le=1000)] = 8.0
    keep_probability: Annotated[float, Field(ge=0, le=1)] = 0.0
    code_sigmas: Annotated[float, Field(ge=0, le=10)] = 0.0
    alpha: Annotated[float, Field(ge=0.001, le=0.25)]
    baseline_runs: Annotated[int, Field(ge=3, le=20)]
    confirm_runs: Annotated[int, Field(ge=0, le=20)]
    confirm_from_sigmas: Annotated[float, Field(ge=0, le=10)]
    minimum_gain_bpb: Annotated[float, Field(ge=0, le=1)]
    least_noise_bpb: Annotated[float, Field(ge=1e-6, le=1)]
    simplicity_bytes: Annotated[int, Field(ge=1, le=1 << 20)]
    simplicity_sigmas: Annotated[float, Field(ge=0, le=3)]
    uneven_processors: Annotated[float, Field(gt=0, le=1024)]
    uneven: Literal["again", "mark"] = "mark"
    memory_ratio: Annotated[float, Field(ge=1, le=100)]
    memory_gain_bpb: Annotated[float, Field(ge=0, le=1)]
    early_stop: EarlyStop
    startup_seconds: Annotated[float, Field(gt=0, le=3600)]
    hand_over_seconds: Annotated[float, Field(gt=0, le=3600)]
    evaluation_seconds: Annotated[float, Field(gt=0, le=86_400)]
    least_allowance: Annotated[float, Field(ge=0, le=1)] = 0.0


class Metric(Strict):
    """One number that may cross from trainer to agent: its range and how it is rounded."""

    minimum: Annotated[float, Field(ge=-1e9)]
    maximum: Annotated[float, Field(le=1e9)]
    digits: Annotated[int, Field(ge=0, le=6)]

    @model_validator(mode="after")
    def _ordered(self) -> Metric:
        if not self.minimum < self.maximum:
            raise ValueError("minimum must be below maximum")
        if any(round(bound, self.digits) != bound for bound in (self.minimum, self.maximum)):
            raise ValueError("minimum and maximum may not have more digits than digits")  # rounding would leave them
        return self


class Leak(Strict):
    """The most that may cross from trainer to agent; runner/core/airlock/leak_budget.py counts."""

    experiment_bits: Annotated[int, Field(ge=64, le=1 << 20)]
    night_bits: Annotated[int, Field(ge=64, le=1 << 30)]
    experiments: Annotated[int, Field(ge=0, le=1_000_000)] = 0


class Metrics(Strict):
    """policies/metrics.yaml."""

    telemetry_bytes: Annotated[int, Field(ge=1 << 10, le=16 << 20)]
    line_bytes: Annotated[int, Field(ge=64, le=16 << 10)]
    lines: Annotated[int, Field(ge=1, le=100_000)]
    curve_points: Annotated[int, Field(ge=0, le=256)]
    loss: Metric
    step: Metric
    summaries: dict[Summary, Metric]
    leak: Leak


class Errors(Strict):
    """policies/errors.yaml: exception classes and messages of which the agent may be told."""

    classes: Annotated[list[Name], Field(min_length=1, max_length=200)]
    templates: Annotated[list[Template], Field(max_length=500)]

    @model_validator(mode="after")
    def _distinct(self) -> Errors:
        for names in (self.classes, [template.id for template in self.templates]):
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"named twice: {', '.join(sorted(twice))}")
        return self


_OTHERS: dict[str, type[Strict]] = {
    "agent": Agent,
    "broker": Broker,
    "audit": Audit,
    "notify": Notify,
    "decision": Decision,
    "metrics": Metrics,
    "errors": Errors,
}


_TERMS = ("sandbox", "seccomp", "decision", "evaluator", "metrics", "errors")  # what scores of one tag have in common


class Policies(Walls):
    """All policy files; `digest` is the SHA-256 over their bytes, `terms` over those that bear on a score."""

    agent: Agent
    broker: Broker
    audit: Audit
    notify: Notify
    decision: Decision
    metrics: Metrics
    errors: Errors
    terms: str


def terms(policies: Policies, kernels: str | None, cache: str | None = None) -> str:
    """What a tag is begun under, besides its artifact: digest of all that bears on a score."""
    text = f"{policies.terms} {kernels}" + (f" {cache}" if cache else "")
    return hashlib.sha256(text.encode()).hexdigest()


def load(*folders: Path) -> Policies:
    """Every policy file, from the first folder that has it, and the digests of exactly the bytes that were parsed.

    Raises PolicyError.
    """
    paths, texts = walls.read_all(folders)
    parsed = {name: parse(paths[name], texts[name], model) for name, model in (walls.MODELS | _OTHERS).items()}
    _agreeing(parsed, paths)
    agent, broker = parsed["agent"], parsed["broker"]
    if isinstance(agent, Agent) and isinstance(broker, Broker):
        for key, model in (("model", agent.model), *(("fallback_models", one) for one in agent.fallback_models)):
            if model not in broker.models:
                raise PolicyError(
                    f"{key}: {model} has no price in broker.yaml",
                    where=str(paths["agent"]),
                    fix="name a model listed under models in broker.yaml, or add its price there",
                )
    digests = {"digest": walls.digest_of(texts, walls.NAMES), "terms": walls.digest_of(texts, _TERMS)}
    return Policies(**parsed, **digests)  # type: ignore[arg-type] # each file's own model


def _agreeing(parsed: Mapping[str, Strict], paths: dict[str, Path]) -> None:
    """Raise PolicyError where files contradict each other: weights that may be scored must be allowed to be written,
    and agents that think while a candidate trains need processors of their own.

    A version before this one shipped such files; a tag that was begun under them goes on.
    """
    sandbox, evaluator = parsed["sandbox"], parsed["evaluator"]
    past = any(paths[name].parent.parent.name == "past" for name in ("sandbox", "evaluator"))
    if past or not (isinstance(sandbox, walls.Sandbox) and isinstance(evaluator, walls.Evaluator)):
        return
    agent = parsed["agent"]
    if isinstance(agent, Agent) and agent.proposers > 1 and sandbox.agents != "apart":
        raise PolicyError(
            f"proposers: {agent.proposers} think while a candidate trains, and agents are {sandbox.agents} then",
            where=str(paths["agent"]),
            fix="proposers: 1, or agents: apart in sandbox.yaml",
        )
    most, written = evaluator.limits.weight_bytes, sandbox.trainer.file_bytes
    if most > written:
        raise PolicyError(
            f"limits.weight_bytes: {most} is more than a trainer may write ({written})",
            where=str(paths["evaluator"]),
            fix="lower it, or raise trainer.file_bytes in sandbox.yaml",
        )


def differences(found: Policies, usual: Policies) -> list[str]:
    """One line for each setting of `found` that `usual` has otherwise."""
    ours = dict(_flat(usual.model_dump(mode="json", exclude={"digest", "terms"})))
    theirs = dict(_flat(found.model_dump(mode="json", exclude={"digest", "terms"})))
    changed = [name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)]
    return [f"{name}: {theirs.get(name)} (usually {ours.get(name)})" for name in changed]


def _flat(value: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        name = f"{before}.{key}" if before else str(key)
        yield from _flat(inner, name) if isinstance(inner, dict) else [(name, inner)]
