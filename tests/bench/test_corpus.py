"""Of all the train.py files of a clone one for each model is taken, from whatever branch and folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import corpus

TRAIN = """from prepare import MAX_SEQ_LEN
import torch
DEPTH = 8
DEVICE_BATCH_SIZE = 128
class MuonAdamW: pass
class GPT(torch.nn.Module):
    def forward(self, x): return x * {factor}
model = GPT().to("cuda")
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A history of a branch, a folder, a deleted file and a file that is no train.py of the loop."""

    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    def commit(path: str, text: str | None) -> None:
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        file.unlink() if text is None else file.write_text(text)
        git("add", "-A")
        git("commit", "-m", "x")

    git("init", "-b", "main")
    commit("train.py", TRAIN.format(factor=2))
    commit("train.py", TRAIN.format(factor=3))
    commit("train.py", TRAIN.format(factor="x"))
    commit("other/train.py", "import torch\nclass GPT: pass\n")
    commit("broken/train.py", "from prepare import (")
    git("checkout", "-b", "branch")
    commit("deep/train.py", TRAIN.format(factor="x.tanh()"))
    commit("deep/train.py", None)
    git("checkout", "main")
    commit("train.py", TRAIN.format(factor=2).replace("class MuonAdamW: pass", "class MuonAdamW: a = [1, 2]"))
    return tmp_path


def test_numbers_and_optimizers_make_no_other_model(clone: Path) -> None:
    factors = [source.split("x * ")[1].split("\n")[0] for source in corpus.distinct(clone).values()]
    assert factors == ["2", "x", "x.tanh()"]


def test_a_file_for_a_gpu_runs_without_one(clone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    assert corpus.write(clone, folder) == 3
    (tmp_path / "prepare.py").write_text("MAX_SEQ_LEN = 8\n")
    tail = """
assert DEPTH == 2 and DEVICE_BATCH_SIZE == 4
torch.cuda.synchronize(); assert torch.cuda.max_memory_allocated() == 0
assert torch.compile(model) is model and torch.cuda.get_device_capability() == (9, 0)
print(model(torch.ones(1)).item())
"""
    for file in sorted(folder.glob("*.py")):
        script = tmp_path / file.name
        script.write_text(file.read_text() + tail)
        root = Path(corpus.__file__).parents[1]
        done = subprocess.run(
            [sys.executable, str(script)], env={"PYTHONPATH": f"{root}:{tmp_path}"}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_what_comes_from_the_future_stays_first() -> None:
    text = corpus.on_a_cpu('"""Doc."""\nfrom __future__ import annotations\nx = "cuda:0"\n')
    compile(text, "train.py", "exec")
    assert 'x = "cpu"' in text
