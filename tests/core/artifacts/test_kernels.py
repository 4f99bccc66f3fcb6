"""Kernel packages: provisioned from a folder, signed, mounted, and loaded by an unmodified get_kernel."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.core.artifacts import kernels, keys, store
from runner.core.artifacts.progress import Stages
from runner.core.base.errors import ArtifactError
from runner.core.base.home import SOURCE, Home
from tests.samples import quickly

Glovebox = Callable[..., tuple[int, str, str]]
ATTENTION = (
    "import torch\n"
    "class flash_attn_interface:\n"
    "    @staticmethod\n"
    "    def flash_attn_func(q, k, v, causal=False, window_size=(-1, -1), **options):\n"
    "        print('PROVISIONED KERNEL', flush=True)\n"
    "        y = torch.nn.functional.scaled_dot_product_attention(\n"
    "            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)\n"
    "        return y.transpose(1, 2)\n"
)


def write_package(folder: Path, source: str, variant: str = "torch-cpu") -> None:
    """A package as the hub holds it, with one build."""
    build = folder / "build" / variant
    build.mkdir(parents=True)
    (build / "__init__.py").write_text(source)
    metadata = {"id": f"_{folder.name}_1".replace("-", "_"), "name": folder.name, "version": 1, "license": "MIT"}
    (build / "metadata.json").write_text(json.dumps(metadata | {"python-depends": [], "backend": {"type": "cpu"}}))


@pytest.fixture
def packages(home: Home, tmp_path: Path) -> Path:
    """A folder with one package, and a policy that wants it."""
    folder = tmp_path / "packages"
    write_package(folder / "flash-attn3", ATTENTION)
    write_package(folder / "flash-attn3", "1/0\n", variant="torch99-cu999-x86_64-linux")
    write_package(folder / "unwanted", "1/0\n")
    text = 'packages:\n  - {repo: kernels-community/flash-attn3, version: 1, variants: ["torch-cpu"]}\n'
    (home.root / "policies" / "kernels.yaml").write_text(text)
    return folder


def test_only_the_builds_the_policy_names_are_signed(home: Home, packages: Path) -> None:
    version = kernels.provision(home, packages, Stages())
    statement = store.admit(home, version)
    assert [subject.name for subject in statement.subject] == [
        "kernels/flash-attn3/build/torch-cpu/__init__.py",
        "kernels/flash-attn3/build/torch-cpu/metadata.json",
    ]
    assert statement.predicate.provenance["kernels-community/flash-attn3"] == "local copy"
    assert store.latest_kernels(home) == version
    assert store.latest(home) == "demo-1"  # kernels are not data


def test_a_changed_kernel_is_refused(home: Home, packages: Path) -> None:
    version = kernels.provision(home, packages, Stages())
    next((home.artifacts / version).rglob("__init__.py")).write_text("import os\n")
    with pytest.raises(ArtifactError, match="does not match"):
        store.admit(home, version)


def test_a_link_in_a_package_is_refused(home: Home, packages: Path) -> None:
    (packages / "flash-attn3" / "build" / "torch-cpu" / "secret.py").symlink_to("/etc/passwd")
    with pytest.raises(ArtifactError, match="not a regular file"):
        kernels.provision(home, packages, Stages())


def test_a_folder_without_the_wanted_package_is_refused(home: Home, packages: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no kernel package"):
        kernels.provision(home, tmp_path, Stages())


def test_kernels_need_a_signing_key(home: Home, packages: Path) -> None:
    keys.path_of(home, "bench").unlink()
    with pytest.raises(ArtifactError, match="no signing key"):
        kernels.provision(home, packages, Stages())


@pytest.mark.engine
@pytest.mark.slow
def test_an_unmodified_get_kernel_finds_the_package_in_the_trainer(
    glovebox: Glovebox, home: Home, packages: Path, engine: object, tmp_path: Path
) -> None:
    code, _, err = glovebox("prepare", "--kernels-from", str(packages))
    assert code == 0, err
    train_py = tmp_path / "train.py"
    seed = (SOURCE / "trainer" / "train.py").read_text()
    train_py.write_text(
        "try:\n    open('/kernels/flash-attn3/build/torch-cpu/x', 'w')\nexcept OSError as e:\n    print('READ-ONLY', e.errno)\n"
        + seed.replace("trained < TIME_BUDGET", "step < 2")
    )
    quickly(home, train_py.read_text())
    code, out, err = glovebox("run", "--tag", "t", "--train-py", str(train_py))
    assert code == 0, err
    assert json.loads(out)["feedback"]["status"] == "keep"
    (log,) = home.root.glob("runs/*/trainer.log")
    assert "PROVISIONED KERNEL" in log.read_text()
    assert "READ-ONLY 30" in log.read_text()
