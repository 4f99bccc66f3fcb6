"""`glovebox policy explain`: what each room may do, in plain words, from the policies in force. TRUSTED, pure."""

from __future__ import annotations

from runner.core.airlock import leak_budget
from runner.core.policy.broker import Broker, Budget
from runner.core.policy.policy_files import EarlyStop, Policies
from runner.core.policy.walls import Box, Sandbox

_UNITS = (("GiB", 30), ("MiB", 20), ("KiB", 10))
FIXED = (
    "no network; read-only root; no capabilities; no new privileges; not root; private process, ipc and cgroup "
    "namespaces; no swap; no restart; nothing of its output kept by the engine"
)


def rooms(policies: Policies) -> dict[str, list[str]]:
    """Lines about each room, by its name."""
    sandbox = policies.sandbox
    profile = "our own seccomp profile" if sandbox.seccomp == "glovebox" else "the engine's seccomp profile"
    every = f"{FIXED}; {profile}; runtime {sandbox.runtime}, of the agent {sandbox.agent_runtime}"
    return {
        "every container": [every],
        "trainer (runs the agent's train.py)": [
            "reads: its train.py, tokenizer, training tokens, provisioned kernels, what the baseline compiled",
            *_ahead(sandbox.standby),
            "writes: three files that exist before it starts (graph, weights, telemetry), and its own temporary space",
            "never: validation data, another run's files, the API key, the engine",
            *_sizes(sandbox.trainer),
            f"time: {_clock(policies)}",
        ],
        "evaluator (scores; runs none of the agent's code)": [
            "reads: graph and weights as data, the tokenizer, the validation rows",
            *_ahead(sandbox.standby),
            "writes: one file, the score",
            f"accepts models whose causality is {' or '.join(policies.evaluator.accept)}",
            *_sizes(sandbox.evaluator),
            f"time: {policies.decision.evaluation_seconds:.0f} s",
        ],
        "agent (holds the conversation)": [
            "reads: what the runner answers; writes: train.py, in place, and notes through the runner",
            "asks: the runner for experiments, the broker for the model; has no other way out, no key, no GPU",
            f"{policies.agent.model}; {policies.agent.turns} calls and {policies.agent.repairs} repairs an experiment",
            *_sizes(sandbox.agent),
        ],
        "broker (holds the API key)": [
            f"sends to {policies.broker.upstream} only{_way(policies.broker)}",
            f"models: {', '.join(sorted(policies.broker.models))}",
            "passes: POST /v1/messages and /v1/messages/count_tokens, rebuilt from an allow-list of fields",
            f"an experiment: {_budget(policies.broker.experiment)}",
            f"a night: {_budget(policies.broker.night)}",
            "keeps requests and answers" if policies.broker.log_bodies else "keeps sizes, hashes and costs, no bodies",
        ],
        "runner (decides and records)": [
            *_rules(policies),
            f"reads a train.py of at most {_size(policies.agent.train_py_bytes)}",
            f"tells the agent: enums, {len(policies.metrics.summaries)} summary numbers, "
            f"{policies.metrics.curve_points} points of the loss curve, one of {len(policies.errors.classes)} errors "
            f"and {len(policies.errors.templates)} known messages",
            f"witness of the audit chain: {policies.audit.witness or 'none'}",
        ],
        "what the trainer can tell the agent, at most": [*_leak(policies), *_uncounted(policies.sandbox)],
    }


def _rules(policies: Policies) -> list[str]:
    rules = policies.decision
    if rules.rule == "upstream":
        return ["keeps any lower val_bpb, as upstream: a lucky seed counts as a gain", *_early(rules.early_stop)]
    return [
        f"keeps at most {rules.alpha:.0%} of changes without effect: gains are held against the noise of "
        f"{rules.baseline_runs} seeds and confirmed by one to {rules.confirm_runs} pairs of reruns on fresh ones",
        f"equal within {rules.simplicity_sigmas:g} standard deviations and {rules.simplicity_bytes} bytes smaller is "
        "kept too",
        f"more than {rules.memory_ratio:g} times the baseline's memory must gain {rules.memory_gain_bpb:g} val_bpb",
        *_early(rules.early_stop),
    ]


def _ahead(standby: bool) -> list[str]:
    return ["may be started ahead: it imports what its image holds and waits, without a candidate"] if standby else []


def _early(rules: EarlyStop) -> list[str]:
    if not rules.enabled:
        return []
    looks = ", ".join(f"{look:.0%}" for look in rules.looks)
    return [f"ends runs that by their training loss cannot win, at {looks} of their budget; {rules.audit:.0%} go on"]


def _leak(policies: Policies) -> list[str]:
    parts = ", ".join(f"{name} {bits:.0f}" for name, bits in leak_budget.channels(policies).items())
    night, most = policies.metrics.leak.night_bits, leak_budget.most(policies)
    return [
        f"{most:.0f} bits an experiment ({parts}); {policies.metrics.leak.experiment_bits} are allowed",
        f"{night} bits ({night // 8192} KiB) a tag, {night / most:.0f} experiments of the most telling kind; then "
        "outcomes without telemetry, and at last no experiment begins",
    ]


def _uncounted(sandbox: Sandbox) -> list[str]:
    """What the kernel tells an agent besides; see "Residual leak" in docs/threat-model.md."""
    if sandbox.agent_runtime == "runsc":
        return ["besides: of the host's own numbers its free disk space is known to show, and is counted"]
    when = "while others train, and afterwards" if sandbox.agents == "apart" else "after a trainer has ended"
    return [
        f"besides, not counted and without a bound: numbers of the host's kernel, {when} (inodes, sessions, ports); "
        "agent_runtime: runsc gives the agent a kernel of its own"
    ]


def _sizes(box: Box) -> list[str]:
    cache = f", {_size(box.exec_cache_bytes)} for compiled code" if box.exec_cache_bytes else ""
    return [
        f"at most {_size(box.memory_bytes)} of memory, {box.cpus:g} processors, {box.pids} processes, "
        f"{box.open_files} open files, {_size(box.file_bytes)} a file, {_size(box.output_bytes)} of output, "
        f"{_size(box.tmp_bytes)} of temporary space{cache}; uid {box.uid}"
    ]


def _clock(policies: Policies) -> str:
    decision = policies.decision
    return (
        f"the artifact's budget, plus {decision.startup_seconds:.0f} s to start and {decision.hand_over_seconds:.0f} s "
        "to hand over until the baseline has calibrated them; then what it needed and half as much, "
        f"at least {decision.least_allowance:.0%} of the budget"
    )


def _way(broker: Broker) -> str:
    """How, where that is not the plain way."""
    parts = [f"by {broker.proxy}"] if broker.proxy else []
    parts += ["UNENCRYPTED"] if broker.upstream.startswith("http:") else []
    parts += [f"trusting {broker.ca_file}"] if broker.ca_file else []
    parts += {"none": ["without a key"], "bearer": ["the key as a bearer token"]}.get(broker.auth, [])
    return f" ({', '.join(parts)})" if parts else ""


def _budget(budget: Budget) -> str:
    return (
        f"at most ${budget.dollars:g}, {budget.tokens:,} tokens, {budget.requests:,} requests, "
        f"{budget.seconds / 3600:g} hours"
    )


def _size(count: int) -> str:
    for unit, shift in _UNITS:
        if count >= 1 << shift:
            return f"{count / (1 << shift):g} {unit}"
    return f"{count} bytes"
