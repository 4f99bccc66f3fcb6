"""A file of a shared layer is one file to the kernel, and a channel; production's images share none."""

from __future__ import annotations

import docker
import pytest

from runner.core.base.doors import Places
from runner.core.base.errors import EngineError
from runner.core.base.home import Home
from runner.core.base.launching import LaunchRequest
from runner.core.policy.policy_files import Policies
from runner.core.policy.walls import Sandbox
from runner.rooms.launcher.engine import check_apart
from runner.rooms.launcher.freezing import AGENT_LABEL
from runner.rooms.launcher.server import Launcher

pytestmark = pytest.mark.engine


def with_agent(policies: Policies, image: str) -> Sandbox:
    agent = policies.sandbox.agent.model_copy(update={"image": image})
    return policies.sandbox.model_copy(update={"agent": agent})


def test_the_images_that_are_built_share_nothing(engine: docker.DockerClient, policies: Policies) -> None:
    check_apart(engine, policies.sandbox)


def test_an_agent_on_the_trainers_base_is_refused(engine: docker.DockerClient, policies: Policies) -> None:
    """The nearest that must fail: another image, one layer in common."""
    container = engine.containers.create(policies.sandbox.trainer.image, ["true"], network_mode="none")
    image = container.commit("glovebox/test-agent", "shared")
    try:
        with pytest.raises(EngineError, match=r"share \d+ layers.*make images"):
            check_apart(engine, with_agent(policies, "glovebox/test-agent:shared"))
    finally:
        container.remove(force=True)
        engine.images.remove(str(image.id), force=True)


def test_what_somebody_elses_agent_runs_counts_and_not_what_policy_calls_it(
    engine: docker.DockerClient, policies: Policies, home: Home
) -> None:
    """Compose names its agent's image itself."""
    request = LaunchRequest(role="trainer", run="0" * 16, policy=policies.digest)
    watching = Launcher(engine, home, Places(home.root / "doors"), policies, watch=True)
    check_apart(engine, policies.sandbox, home.id)
    label = {AGENT_LABEL: home.id}
    agent = engine.containers.run(policies.sandbox.trainer.image, ["sleep", "600"], detach=True, network_mode="none",
                                  labels=label)  # fmt: skip
    try:
        with pytest.raises(EngineError, match="page cache"):
            watching.specification(request, home.run(request.run))
        check_apart(engine, policies.sandbox)
        check_apart(engine, policies.sandbox, "another bench")
    finally:
        agent.remove(force=True)


def test_an_image_that_is_missing_is_somebody_elses_error(engine: docker.DockerClient, policies: Policies) -> None:
    check_apart(engine, with_agent(policies, "glovebox/none:dev"))


def test_an_engine_that_tells_no_layers_is_refused(
    engine: docker.DockerClient, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = engine.images.get(policies.sandbox.agent.image)
    image.attrs["RootFS"] = {"Type": "layers", "Layers": []}
    monkeypatch.setattr(type(engine.images), "get", lambda *_: image)
    with pytest.raises(EngineError, match="does not say"):
        check_apart(engine, policies.sandbox)
