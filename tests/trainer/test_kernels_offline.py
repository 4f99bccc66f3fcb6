"""The stand-in for FlashAttention computes what FlashAttention computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.core.artifacts.test_kernels import write_package
from trainer import attention, kernels_offline


def naive(q, k, v, causal, window):
    """Softmax attention by definition on [batch, seq, heads, dim]."""
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    for i in range(q.shape[1]):
        at = i + k.shape[1] - q.shape[1]
        for j in range(k.shape[1]):
            left, right = window
            if (causal and j > at) or (left >= 0 and j < at - left) or (right >= 0 and j > at + right):
                scores[:, :, i, j] = float("-inf")
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [(-1, -1), (3, 0), (16, 0), (2, 2), (0, 0), (-1, 2)])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_windows_causality_and_grouped_heads(causal: bool, window: tuple[int, int], kv_heads: int) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 16, 4, 8), torch.randn(2, 16, kv_heads, 8), torch.randn(2, 16, kv_heads, 8)
    found = attention.flash_attn_func(q, k, v, causal=causal, window_size=window)
    torch.testing.assert_close(found, naive(q, k, v, causal, window), rtol=1e-5, atol=1e-5)


def test_a_mounted_package_is_used_and_bypassed_while_exporting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(
        tmp_path / "tiny-attn",
        "class flash_attn_interface:\n    @staticmethod\n    def flash_attn_func(q, k, v, **options):\n        return v * 2\n",
    )
    monkeypatch.setattr(kernels_offline, "KERNELS_DIR", tmp_path)
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_package(tmp_path / "gpu-attn", "1/0\n", variant="torch99-cxx11-cu130-aarch64-linux")
    monkeypatch.setattr(kernels_offline, "KERNELS_DIR", tmp_path)
    kernel = kernels_offline.get_kernel("someone/gpu-attn")
    assert kernel.flash_attn_interface.flash_attn_func is attention.flash_attn_func
    assert "no usable build" in capsys.readouterr().out


def test_an_unprovisioned_kernel_falls_back_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    kernel = kernels_offline.get_kernel("kernels-community/flash-attn3")
    assert kernel.flash_attn_interface.flash_attn_func is attention.flash_attn_func
    assert "not provisioned" in capsys.readouterr().out
