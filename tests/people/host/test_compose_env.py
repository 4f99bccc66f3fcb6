"""What `glovebox init` writes for compose about the GPUs of the host; a stand-in answers for their driver."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from runner.core.base.errors import PolicyError
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.policy.policy_files import Policies
from runner.people.host import compose_env
from tests import nvml
from tests.nvml import GPU, Card, Nvml

OTHER = GPU.replace("0000", "9999")


def written(path: Path, home: Home) -> dict[str, str]:
    compose_env.write(path, home)
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    names = [line.split("=", 1)[0] for line in lines]
    assert len(names) == len(set(names)), "a name twice: compose takes the last"
    return dict(line.split("=", 1) for line in lines)


def test_one_gpu_is_chosen_and_described(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.install(monkeypatch, Nvml([Card()]))
    found = written(tmp_path / ".env", home)
    assert found["GLOVEBOX_GPU"] == GPU
    assert found["GLOVEBOX_GPUS"] == f"{GPU} NVIDIA H100 80GB HBM3"
    assert found["GLOVEBOX_DRIVER"] == "580.159.04"
    assert Path(found["GLOVEBOX_LOCKS"]).is_dir()
    assert Path(found["GLOVEBOX_CDI"]).is_dir()
    assert written(tmp_path / ".env", home) == found


def test_another_benchs_settings_are_not_taken_over_unless_the_file_is_named(home: Home, tmp_path: Path) -> None:
    """A second `init` in one checkout sent the first bench's compose services to the second bench, without a word."""
    env, other = tmp_path / ".env", Home(tmp_path / "other" / ".glovebox")
    shutil.copytree(home.root, other.root)
    written(env, home)
    before = env.read_text()
    with pytest.raises(PolicyError, match=r"another bench.*--env-file"):
        compose_env.write(env, other, named=False)
    assert env.read_text() == before
    compose_env.write(env, home, named=False)  # its own
    compose_env.write(env, other)  # named
    assert f"GLOVEBOX_HOME={other.root}\n" in env.read_text()


def test_a_gpu_that_a_person_named_stays(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.install(monkeypatch, Nvml([Card()]))
    (tmp_path / ".env").write_text(f"GLOVEBOX_GPU={OTHER}\n")
    assert written(tmp_path / ".env", home)["GLOVEBOX_GPU"] == OTHER


def test_of_several_gpus_none_is_chosen(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.install(monkeypatch, Nvml([Card(), Card(uuid=OTHER)]))
    found = written(tmp_path / ".env", home)
    assert "GLOVEBOX_GPU" not in found
    assert OTHER in found["GLOVEBOX_GPUS"]


def test_without_a_gpu_nothing_is_named(home: Home, tmp_path: Path) -> None:
    found = written(tmp_path / ".env", home)
    assert "GLOVEBOX_GPU" not in found
    assert (found["GLOVEBOX_GPUS"], found["GLOVEBOX_DRIVER"]) == ("", "")


@pytest.mark.parametrize("hostile", ["x\nEVIL=1", "H100 ${HOME}", "H100 #", "'580", '"580', "a\fb\rc"])
def test_what_a_driver_says_sets_nothing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostile: str
) -> None:
    nvml.install(monkeypatch, Nvml([Card(name=hostile, uuid=hostile)], version=hostile))
    found = written(tmp_path / ".env", home)
    assert set(found) == set(written(tmp_path / "again", home))
    assert "EVIL" not in found
    assert "GLOVEBOX_GPU" not in found  # no UUID
    for name in ("GLOVEBOX_GPUS", "GLOVEBOX_DRIVER"):
        assert not set(found[name]) & set("$#'\"\n\r\f")


@pytest.mark.parametrize(
    "line", ["export GLOVEBOX_BENCH=evil", "GLOVEBOX_BENCH =evil", "GLOVEBOX_BENCH: evil", " GLOVEBOX_BENCH=evil"]
)
def test_a_line_of_ours_in_another_spelling_is_replaced(home: Home, tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"{line}\nGLOVEBOX_TAG=mine\n")
    assert written(tmp_path / ".env", home)["GLOVEBOX_BENCH"] == home.id
    assert "evil" not in (tmp_path / ".env").read_text()
    assert "GLOVEBOX_TAG=mine" in (tmp_path / ".env").read_text()


def test_a_quote_that_does_not_end_is_refused(home: Home, tmp_path: Path) -> None:
    """It would swallow the lines after it."""
    (tmp_path / ".env").write_text("GLOVEBOX_TAG='mine\n")
    with pytest.raises(PolicyError, match="quote that does not end"):
        compose_env.write(tmp_path / ".env", home)
    (tmp_path / ".env").write_text("GLOVEBOX_TAG='mine'\n")
    assert written(tmp_path / ".env", home)["GLOVEBOX_TAG"] == "'mine'"


def test_the_agent_has_the_image_and_the_limits_of_policy(home: Home, tmp_path: Path, policies: Policies) -> None:
    """They were literals of compose.yaml: another agent's image, or more memory for it, changed nothing there."""
    box = policies.sandbox.agent.model_copy(update={"image": "lab/agent:1", "file_bytes": 1 << 26, "open_files": 4096})
    sandbox = policies.sandbox.model_copy(update={"agent": box})
    found = compose_env.of_agent(sandbox)
    assert found["GLOVEBOX_AGENT_IMAGE"] == "lab/agent:1"
    assert (found["GLOVEBOX_AGENT_FILE_BYTES"], found["GLOVEBOX_AGENT_OPEN_FILES"]) == (str(1 << 26), "4096")
    assert float(found["GLOVEBOX_AGENT_CPUS"]) <= (os.cpu_count() or 1)
    used = set(re.findall(r"\$\{(GLOVEBOX_AGENT_[A-Z_]+)", (SOURCE / "compose.yaml").read_text()))
    assert set(found) <= used  # each is a setting of compose.yaml
    env = tmp_path / ".env"
    compose_env.write(env, home)
    assert compose_env.differences(env, home, policies.sandbox) == []
    assert set(compose_env.differences(env, home, sandbox) or ()) == {
        "GLOVEBOX_AGENT_IMAGE",
        "GLOVEBOX_AGENT_FILE_BYTES",
        "GLOVEBOX_AGENT_OPEN_FILES",
    }
    assert compose_env.differences(tmp_path / "none", home, sandbox) is None
    assert compose_env.differences(env, Home(tmp_path / "another"), sandbox) is None
