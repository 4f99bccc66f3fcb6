"""Kernel packages: provisioned from a folder, signed, mounted, and loaded by an unmodified get_kernel."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from runner.core.artifacts import kernels, keys, store
from runner.core.artifacts.progress import Stages
from runner.core.base.errors import ArtifactError
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from tests.core.artifacts import hub
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


def test_the_gpus_a_package_has_code_for_are_signed_with_it(home: Home, packages: Path) -> None:
    text = (home.root / "policies" / "kernels.yaml").read_text().replace("]}", '], architectures: ["8.0", "9.0a"]}')
    (home.root / "policies" / "kernels.yaml").write_text(text)
    version = kernels.provision(home, packages, Stages())
    assert json.loads((home.artifacts / version / "kernels" / "flash-attn3" / kernels.ARCHITECTURES).read_text()) == [
        "8.0",
        "9.0a",
    ]
    assert "kernels/flash-attn3/architectures.json" in {subject.name for subject in store.admit(home, version).subject}


DOWNLOAD = """
import sys
from pathlib import Path
from runner.core.artifacts import kernels
from runner.core.artifacts.progress import Stages
from runner.core.base.home import Home
class Said(Stages):
    def say(self, text): print(text, flush=True)
print("VERSION", kernels.provision(Home(Path(sys.argv[1])), None, Said()))
"""


def download(
    home: Home, repos: hub.Repos, tmp_path: Path, refusals: Sequence[tuple[int, dict[str, str]]] = ()
) -> subprocess.CompletedProcess[str]:
    """`prepare --kernels` with the shipped policy, against a hub that has these repositories."""
    (home.root / "policies" / "kernels.yaml").write_text((SOURCE / "policies" / "kernels.yaml").read_text())
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with hub.serving(repos, refusals) as url:
        environment = kept | {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-c", DOWNLOAD, str(home.root)]
        return subprocess.run(command, env=environment, cwd=SOURCE, capture_output=True, text=True, check=False)


MACHINE = platform.machine()
STABLE = f"torch-stable-abi29-cu130-{MACHINE}-linux"


@pytest.mark.parametrize("kind", ["kernel", "model"])
def test_the_shipped_policy_fetches_what_the_hub_has_and_leaves_out_what_it_has_not(
    home: Home, tmp_path: Path, kind: str
) -> None:
    files = {f"build/{STABLE}/__init__.py": b"x = 1\n", "build/torch-rocm/__init__.py": b"1/0\n", "README.md": b"?"}
    done = download(home, {(kind, "kernels-community/flash-attn3"): files}, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "varunneal/flash-attention-3 is left out" in done.stdout
    version = done.stdout.split("VERSION ")[1].strip()
    statement = store.admit(home, version)
    assert [subject.name for subject in statement.subject] == [
        "kernels/flash-attn3/architectures.json",
        f"kernels/flash-attn3/build/{STABLE}/__init__.py",
    ]
    assert statement.predicate.provenance["kernels-community/flash-attn3"] == hub.COMMIT


def test_a_hub_that_has_nothing_is_an_error_and_nothing_is_signed(home: Home, tmp_path: Path) -> None:
    done = download(home, {}, tmp_path)
    assert done.returncode != 0
    assert "no kernel package was found" in done.stderr
    assert store.latest_kernels(home) is None


REFUSALS = [
    (429, {"RateLimit": '"api";r=0;t=3'}),  # as the hub says it
    (429, {"Retry-After": "3"}),
    (503, {}),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=["RateLimit", "Retry-After", "in trouble"])
def test_a_hub_that_asks_to_be_left_alone_is_asked_again_when_it_says(
    home: Home, tmp_path: Path, refusal: tuple[int, dict[str, str]]
) -> None:
    files = {f"build/{STABLE}/__init__.py": b"x = 1\n"}
    done = download(home, {("kernel", "kernels-community/flash-attn3"): files}, tmp_path, [refusal])
    assert done.returncode == 0, done.stderr
    assert ("the hub answers 429: asked to wait 3 s" in done.stdout) is (refusal[0] == 429)
    assert f"kernels/flash-attn3/build/{STABLE}/__init__.py" in [
        subject.name for subject in store.admit(home, done.stdout.split("VERSION ")[1].strip()).subject
    ]


def test_packages_of_a_hub_that_asks_for_hours_are_left_out(home: Home, tmp_path: Path) -> None:
    done = download(home, {}, tmp_path, [(429, {"Retry-After": "7200"})] * 20)
    assert done.returncode != 0
    assert (
        "flash-attn3 is left out: gave up after 1 attempts: the hub answers 429, and it asks to wait 7200 s"
        in done.stdout
    )


def test_builds_of_another_machine_are_not_fetched(home: Home, tmp_path: Path) -> None:
    other = STABLE.replace(MACHINE, "riscv64")
    done = download(home, {("kernel", "kernels-community/flash-attn3"): {f"build/{other}/__init__.py": b""}}, tmp_path)
    assert "no build that kernels.yaml names" in done.stdout
    assert done.returncode != 0


BREAKS = DOWNLOAD.replace(
    "class Said",
    """
import huggingface_hub, shutil
real, calls = shutil.copytree, []
def breaks(source, target, *more, **named):
    calls.append(source)
    real(source, target, *more, **named)
    raise OSError("the disk is full")
shutil.copytree = breaks
class Said""",
)


def test_half_a_package_is_none(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A red team had half a package signed under another repository's commit, without the list of its GPUs."""
    monkeypatch.setitem(globals(), "DOWNLOAD", BREAKS)
    files = {f"build/{STABLE}/__init__.py": b"x = 1\n"}
    done = download(home, {("kernel", "kernels-community/flash-attn3"): files}, tmp_path)
    assert "kernels-community/flash-attn3 is left out: OSError" in done.stdout
    assert done.returncode != 0
    assert store.latest_kernels(home) is None


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
