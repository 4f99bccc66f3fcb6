"""The compile cache: whose file fills it, for which image and device it is good, and that no candidate writes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from runner.core.artifacts import compile_cache, store
from runner.core.base import device
from runner.core.base.errors import ArtifactError, GloveboxError
from runner.core.base.home import Home
from runner.core.base.launching import Cache, EndReason, EngineResult, LaunchRequest, Release
from runner.core.base.mountable import COMPILED_FILE, SOURCE
from runner.core.policy import policy_files
from tests.samples import QUICK, quickly

Glovebox = Callable[..., tuple[int, str, str]]
REQUEST = LaunchRequest(role="trainer", run="a" * 16, policy="0" * 64, keep_cache=True)
ENDED = EngineResult(
    exit_code=0, reason=EndReason.EXIT, oom=False, seconds=1.0, output_bytes=0, image="sha256:one", container="c"
)


def train(home: Home, ended: EngineResult = ENDED, data: bytes = b"compiled") -> compile_cache.Train:
    """A trainer that leaves this archive."""

    def run(request: LaunchRequest, _: Release) -> EngineResult:
        folder = home.run(request.run)
        folder.mkdir(parents=True)
        (folder / "cache.tar").write_bytes(data)
        return ended

    return run


def make(home: Home, **given: object) -> str:
    return compile_cache.make(home, b"x = 1\n", train(home, **given), REQUEST, 60.0, 5)  # type: ignore[arg-type]


def test_it_is_signed_with_what_it_was_made_of_and_for(home: Home) -> None:
    version = make(home)
    told = store.admit(home, version).predicate.provenance
    assert (told["image"], told["device"]) == ("sha256:one", device.kind(None))
    assert (home.store / version / COMPILED_FILE).read_bytes() == b"compiled"
    assert store.caches(home) == [version]
    assert store.latest(home) == "demo-1"  # no data artifact
    assert not home.run(REQUEST.run).exists()
    made = compile_cache.admit(home, version)
    assert made.cold_seconds == 0.0  # it ended before its budget
    assert made == Cache(version=version, image="sha256:one", device=device.kind(None), cold_seconds=0.0)


def test_it_fits_what_it_was_made_for_and_nothing_else() -> None:
    made = Cache(version="cache-2", image="sha256:one", device=device.kind(None))
    compile_cache.check_fit(made, "sha256:one", None)
    with pytest.raises(ArtifactError, match=r"made for image .* glovebox warm"):
        compile_cache.check_fit(made, "sha256:two", None)
    with pytest.raises(ArtifactError, match="this is NVIDIA H100"):
        compile_cache.check_fit(made, "sha256:one", "NVIDIA H100")
    compile_cache.check_fit(made.model_copy(update={"device": "NVIDIA H100"}), "sha256:one", "NVIDIA H100")


@pytest.mark.parametrize("missing", ["image", "device"])
def test_a_manifest_that_does_not_say_fits_nothing(missing: str) -> None:
    made = Cache(version="cache-2", image="sha256:one", device=device.kind(None))
    with pytest.raises(ArtifactError, match=f"made for {missing} , this is"):
        compile_cache.check_fit(made.model_copy(update={missing: ""}), "sha256:one", None)


def test_an_altered_one_is_refused(home: Home) -> None:
    version = make(home)
    path = home.artifacts / version / COMPILED_FILE
    path.write_bytes(b"poisoned")
    with pytest.raises(ArtifactError, match="does not match"):
        compile_cache.admit(home, version)


@pytest.mark.parametrize(
    ("changes", "data"),
    [({"exit_code": 1}, b"x"), ({"reason": EndReason.WALL}, b"x"), ({}, b"")],
)
def test_a_baseline_that_did_not_end_well_makes_none(home: Home, changes: dict[str, object], data: bytes) -> None:
    with pytest.raises(GloveboxError, match=r"trainer\.log: the baseline did not run to its end"):
        make(home, ended=ENDED.model_copy(update=changes), data=data)
    assert store.caches(home) == []


def test_an_agents_file_is_not_compiled_unless_somebody_vouches_for_it(home: Home) -> None:
    assert compile_cache.source(home, None) == (SOURCE / "trainer" / "train.py").read_bytes()
    home.seed.write_text("imported = 1\n")
    with pytest.raises(ArtifactError, match="an agent wrote"):
        compile_cache.source(home, None)
    assert compile_cache.source(home, home.seed) == b"imported = 1\n"
    with pytest.raises(ArtifactError, match="cannot be read"):
        compile_cache.source(home, Path("/nonexistent/train.py"))


def test_a_tag_keeps_the_cache_it_was_begun_with(policies: policy_files.Policies) -> None:
    kinds = [policy_files.terms(policies, None, cache) for cache in (None, "cache-2", "cache-3")]
    assert len(set(kinds)) == 3
    assert policy_files.terms(policies, None) == kinds[0]


def test_forgotten_ones_are_gone(home: Home) -> None:
    version = make(home)
    store.admit(home, version)
    assert compile_cache.forget(home) == [version]
    assert store.caches(home) == []
    assert not (home.store / version).exists()
    assert store.next_serial(home) > store.serial_of(version)


def test_the_processor_is_part_of_its_name() -> None:
    told = device.kind(None)
    assert told == device.kind(None)
    assert "instructions" in told


COMPILED = (
    "import os, sys, torch\n"
    "from torch._dynamo.utils import counters\n"
    "compiled = torch.compile(lambda x: (x.sin() * x.cos()).sum())\n"
    "compiled(torch.ones(64))\n"
    "hits = counters['inductor']['fxgraph_cache_hit'] + counters['aot_autograd']['autograd_cache_hit']\n"
    "mine = os.path.exists('/cache/mine')\n"
    "open('/cache/mine', 'w').write('left here')\n"
    "try:\n    open('/warm.tar', 'ab')\n    writable = True\nexcept OSError:\n    writable = False\n"
    "sys.exit(f'HITS {hits} MINE {mine} WRITABLE {writable}')\n"
)


@pytest.mark.engine
@pytest.mark.slow
def test_runs_begin_with_what_the_baseline_compiled_and_leave_nothing_to_the_next(
    glovebox: Glovebox, home: Home, engine: docker.DockerClient, tmp_path: Path
) -> None:
    quickly(home, COMPILED[: COMPILED.index("hits =")] + QUICK)  # one that compiles: it sets the clock
    candidate, baseline = tmp_path / "candidate.py", tmp_path / "baseline.py"
    candidate.write_text(COMPILED)
    baseline.write_text(COMPILED[: COMPILED.index("hits =")])

    def run(tag: str) -> str:
        code, out, err = glovebox("run", "--tag", tag, "--train-py", str(candidate))
        assert code == 0, err
        row = json.loads(out.splitlines()[-1])["row"]
        lines = (home.run(row["run"]) / "trainer.log").read_text().splitlines()
        return next(line for line in lines if line.startswith("HITS "))  # a compile worker may warn after it

    cold = run("cold")
    code, out, err = glovebox("warm", "--train-py", str(baseline), "--json")
    assert code == 0, err
    assert json.loads(out)["bytes"] > 10_000
    assert cold == "HITS 0 MINE False WRITABLE False"
    warm = run("warm")
    assert warm.startswith("HITS ")
    assert not warm.startswith("HITS 0")
    assert warm.endswith("MINE False WRITABLE False")
    assert run("cold") == cold  # a tag goes on as it was begun, and nothing was left by either
    assert glovebox("verify")[0] == 0
    other = home.root / "policies" / "sandbox.yaml"
    other.write_text((SOURCE / "policies" / "sandbox.yaml").read_text().replace("trainer:dev", "trainer:other", 1))
    made = engine.containers.create("glovebox/trainer:dev")
    made.commit("glovebox/trainer", "other", conf={"Labels": {"glovebox.image": "trainer of another day"}})
    made.remove()
    try:
        code, _, err = glovebox("run", "--tag", "new", "--train-py", str(candidate))
        assert code != 0
        assert "made for image" in err
    finally:
        engine.images.remove("glovebox/trainer:other")


@pytest.mark.parametrize("told", ["nan", "inf", "-1", "1e9", "soon"])
def test_a_cold_start_that_is_no_time_is_refused(told: str) -> None:
    with pytest.raises(ArtifactError, match="no time"):
        compile_cache._seconds(told, "cache-1")
    assert compile_cache._seconds("44.7", "cache-1") == 44.7
