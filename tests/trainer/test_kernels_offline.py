"""get_kernel without a network: a provisioned package where it fits this machine, else torch's own attention."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from runner.core.base.mountable import SOURCE
from tests.core.artifacts.test_kernels import write_package
from trainer import attention, attention_forms, kernels_offline

ANYWHERE = "torch-universal"  # a build for every torch: the tests' own may be of CUDA on a machine without a GPU
TWICE = "class flash_attn_interface:\n    @staticmethod\n    def flash_attn_func(q, k, v, **options):\n        return v * 2\n"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where packages are mounted."""
    monkeypatch.setattr(kernels_offline, "KERNELS_DIR", tmp_path)
    monkeypatch.setenv("GLOVEBOX_OUT", str(tmp_path))
    return tmp_path


def is_the_package(repo: str) -> bool:
    """Whether TWICE is what a train.py gets; otherwise it must be the stand-in."""
    given = kernels_offline.get_kernel(repo).flash_attn_interface.flash_attn_func
    v = torch.ones(1, 4, 2, 8)
    packaged = torch.equal(given(v, v, v, causal=True), v * 2)
    assert packaged or given is attention_forms.functions(repo)["flash_attn_func"]
    return packaged


def test_a_mounted_package_is_used_and_bypassed_while_exporting(packages: Path) -> None:
    write_package(packages / "tiny-attn", TWICE, variant=ANYWHERE)
    kernel = kernels_offline.get_kernel("someone/tiny-attn").flash_attn_interface.flash_attn_func
    v = torch.ones(1, 4, 2, 8)
    assert torch.equal(kernel(v, v, v, causal=True), v * 2)

    class Model(torch.nn.Module):
        def forward(self, x):
            return kernel(x, x, x, causal=True)

    with attention.exporting():
        exported = torch.export.export(Model(), (v,), strict=False)
    assert torch.allclose(exported.module()(v), v)


def test_a_package_without_a_build_for_this_machine_falls_back_and_says_so(
    packages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_package(packages / "gpu-attn", "1/0\n", variant="torch99-cxx11-cu130-aarch64-linux")
    assert not is_the_package("someone/gpu-attn")
    assert "no usable build" in capsys.readouterr().out


def test_an_unprovisioned_kernel_falls_back_and_says_so(packages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not is_the_package("kernels-community/flash-attn3")
    assert "not provisioned" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mounted", "asked", "served"),
    [
        ("flash-attn3", "varunneal/flash-attention-3", True),
        ("flash-attention-3", "kernels-community/flash-attn3", True),
        ("flash-attn3", "kernels-community/flash-attn3", True),
        ("flash-attn2", "kernels-community/flash-attn3", False),
        ("flash-attn3", "kernels-community/flash-attn2", False),
    ],
)
def test_one_kernel_under_two_names_serves_both_and_no_other(
    packages: Path, mounted: str, asked: str, served: bool
) -> None:
    write_package(packages / mounted, TWICE, variant=ANYWHERE)
    assert is_the_package(asked) is served


def test_the_name_that_was_asked_for_comes_first_and_a_useless_one_does_not_hide_the_other(packages: Path) -> None:
    write_package(packages / "flash-attn3", TWICE, variant=ANYWHERE)
    write_package(packages / "flash-attention-3", TWICE.replace("* 2", "* 3"), variant=ANYWHERE)
    v = torch.ones(1, 4, 2, 8)
    found = kernels_offline.get_kernel("x/flash-attention-3").flash_attn_interface.flash_attn_func(v, v, v)
    assert torch.equal(found, v * 3)
    (packages / "flash-attention-3" / kernels_offline.ARCHITECTURES).write_text('["9.0a"]')  # there is no GPU
    assert is_the_package("x/flash-attention-3")


# A package without code for a GPU ends the process at its first call


@pytest.mark.parametrize(
    ("built_for", "here", "runs"),
    [
        ("8.0", (8, 0), True),
        ("8.0", (8, 9), True),  # a later minor version
        ("8.6", (8, 0), False),  # an earlier one
        ("8.0", (9, 0), False),  # another major one
        ("9.0", (8, 9), False),
        ("9.0a", (9, 0), True),
        ("10.0a", (10, 3), False),  # with a letter: there and nowhere else
        ("10.0", (10, 3), True),
        ("12.0", (12, 1), True),
    ],
)
def test_code_runs_on_later_minor_versions_unless_it_has_a_letter(
    built_for: str, here: tuple[int, int], runs: bool
) -> None:
    assert kernels_offline._runs(built_for, here) is runs


@pytest.mark.parametrize(
    ("here", "served", "why"),
    [
        ((9, 0), True, ""),
        ((8, 6), True, ""),
        ((12, 0), False, "no code for this GPU (12.0)"),
        (None, False, "needs a GPU"),
    ],
)
def test_a_package_is_used_only_on_a_gpu_it_has_code_for(
    packages: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    here: tuple[int, int] | None,
    served: bool,
    why: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: here is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: here)
    write_package(packages / "flash-attn3", TWICE, variant=ANYWHERE)
    (packages / "flash-attn3" / kernels_offline.ARCHITECTURES).write_text(json.dumps(["8.0", "9.0a"]))
    assert is_the_package("kernels-community/flash-attn3") is served
    assert why in capsys.readouterr().out


def test_torch_is_imported_with_the_first_kernel_and_not_before(tmp_path: Path) -> None:
    """A train.py may set variables that torch reads when it is imported."""
    script = (
        "import os, sys\n"
        "from trainer import kernels_offline\n"
        "kernels_offline.install()\n"
        "assert os.environ['HF_HUB_OFFLINE'] == '1'\n"
        "from kernels import get_kernel\n"
        "assert get_kernel is kernels_offline.get_kernel\n"
        "before = 'torch' in sys.modules\n"
        "get_kernel('someone/attention')\n"
        "print(before, 'torch' in sys.modules)\n"
    )
    environment = os.environ | {"GLOVEBOX_KERNELS": str(tmp_path)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=SOURCE, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False True"
