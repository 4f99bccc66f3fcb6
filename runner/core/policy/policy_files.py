"""The models of policies/*.yaml: the settings a security reviewer reads. TRUSTED, fails closed.

How a file is read, and what is refused, is in strict_yaml.py.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from runner.core.base.errors import PolicyError
from runner.core.base.strict_yaml import Strict, parse, read
from runner.core.policy.broker import Broker, Model
from runner.core.policy.error_templates import Template
from runner.core.policy.seccomp import Seccomp

Bytes = Annotated[int, Field(ge=1 << 10, le=1 << 40)]
Summary = Literal[
    "training_seconds", "peak_vram_mb", "mfu_percent", "total_tokens_M", "num_steps", "num_params_M", "depth"
]  # upstream's closing summary without val_bpb: a claimed score never crosses
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]


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
    agent_runtime: Literal["runc", "runsc"]
    seccomp: Literal["glovebox", "engine"]
    minimum_engine: Annotated[str, Field(pattern=r"^(2[0-9]|[3-9][0-9])\.\d+$")]
    minimum_toolkit: Annotated[str, Field(pattern=r"^\d{1,3}\.\d{1,3}\.\d{1,3}$")]
    standby: bool
    gpu_idle_mib: Annotated[int, Field(ge=0, le=1 << 20)] = 1024
    agents: Literal["frozen", "apart"]
    userns: Literal["none", "remap", "rootless"]
    userns_base: Annotated[int, Field(ge=0, le=4_000_000_000)]
    trainer: Box
    evaluator: Box
    agent: Box

    def runtime_of(self, role: str) -> str:
        """The OCI runtime of a role's containers."""
        return self.agent_runtime if role == "agent" else self.runtime

    @model_validator(mode="after")
    def _separate(self) -> Sandbox:
        if (self.userns == "none") is not (self.userns_base == 0):
            raise ValueError("userns_base is 0 without a user namespace and above 0 with one")
        if self.agent_runtime == "runsc" and self.userns != "none":
            raise ValueError("agent_runtime: runsc needs userns: none; gVisor maps users itself")
        if self.agent.uid in (self.trainer.uid, self.evaluator.uid):
            raise ValueError("the agent needs a uid of its own")
        return self


class Agent(Strict):
    """policies/agent.yaml: what the agent may ask of the runner, and how it goes about its work."""

    train_py_bytes: Annotated[int, Field(ge=1 << 10, le=1 << 20)]
    description_chars: Annotated[int, Field(ge=16, le=1000)]
    history_rows: Annotated[int, Field(ge=1, le=1000)]
    session_seconds: Annotated[float, Field(gt=0, le=7 * 86_400)]
    model: Model
    max_tokens: Annotated[int, Field(ge=256, le=128_000)]
    turns: Annotated[int, Field(ge=2, le=500)]
    repairs: Annotated[int, Field(ge=0, le=10)]
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
    audit_trials: Annotated[int, Field(ge=0, le=100_000)]
    audit_trials_unproved: Annotated[int, Field(ge=1000, le=10_000_000)]
    audit_share: Annotated[float, Field(ge=0, le=1)]
    audit_alone_share: Annotated[float, Field(ge=0, le=1)]
    fold_share: Annotated[float, Field(gt=0, le=1)]
    scoring_ratio: Annotated[float, Field(ge=1, le=1000)]
    threads: Annotated[int, Field(ge=1, le=256)]
    on_contradiction: Literal["stop", "go_on"]


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


_FILES: dict[str, type[Strict]] = {
    "sandbox": Sandbox,
    "seccomp": Seccomp,
    "agent": Agent,
    "broker": Broker,
    "audit": Audit,
    "notify": Notify,
    "decision": Decision,
    "evaluator": Evaluator,
    "metrics": Metrics,
    "errors": Errors,
}


_TERMS = ("sandbox", "seccomp", "decision", "evaluator", "metrics", "errors")  # what scores of one tag have in common


class Policies(Strict):
    """All policy files; `digest` is the SHA-256 over their bytes, `terms` over those that bear on a score."""

    sandbox: Sandbox
    seccomp: Seccomp
    agent: Agent
    broker: Broker
    audit: Audit
    notify: Notify
    decision: Decision
    evaluator: Evaluator
    metrics: Metrics
    errors: Errors
    digest: str
    terms: str


def terms(policies: Policies, kernels: str | None, cache: str | None = None) -> str:
    """What a tag is begun under, besides its artifact: digest of all that bears on a score."""
    text = f"{policies.terms} {kernels}" + (f" {cache}" if cache else "")
    return hashlib.sha256(text.encode()).hexdigest()


def load(*folders: Path) -> Policies:
    """Every policy file, from the first folder that has it, and the digests of exactly the bytes that were parsed.

    Raises PolicyError.
    """
    paths = {name: place(folders, f"{name}.yaml") for name in _FILES}
    texts = {name: read(path) for name, path in paths.items()}
    parsed = {name: parse(paths[name], texts[name], model) for name, model in _FILES.items()}
    agent, broker = parsed["agent"], parsed["broker"]
    if isinstance(agent, Agent) and isinstance(broker, Broker) and agent.model not in broker.models:
        raise PolicyError(
            f"model: {agent.model} has no price in broker.yaml",
            where=str(paths["agent"]),
            fix="name a model listed under models in broker.yaml, or add its price there",
        )
    digests = {"digest": _digest(texts, tuple(_FILES)), "terms": _digest(texts, _TERMS)}
    return Policies(**parsed, **digests)  # type: ignore[arg-type] # each file's own model


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


def place(folders: tuple[Path, ...], name: str) -> Path:
    """Where a policy file is: the first folder that has it, else where it should be."""
    return next((folder / name for folder in folders if os.path.lexists(folder / name)), folders[-1] / name)


def _digest(texts: dict[str, str], names: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name} {len(texts[name].encode())}\n{texts[name]}".encode())
    return digest.hexdigest()
