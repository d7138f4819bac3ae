"""The GPU benchmark's arithmetic, on the CPU, and what its stored tables say."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import gpu
from course_utils import benchmark

pytestmark = pytest.mark.authors

PLACE = ["model", "batch", "tokens", "contender"]


def test_a_sweep_has_each_contender_at_each_length(monkeypatch):
    monkeypatch.setattr(benchmark, "LENGTHS", (2, 3))
    table = gpu.sweep(gpu.Run("course", 2, tokens=3), rounds=2, device="cpu")
    assert list(table["tokens"]) == [2] * 3 + [3] * 3
    assert (table.loc[table["contender"] == benchmark.NO_CACHE, "gain"] == 1).all()
    assert (table["q25"] <= table["seconds"]).all() and (table["seconds"] <= table["q75"]).all()


def test_attention_is_compared_and_a_wrong_way_is_refused(monkeypatch):
    table = gpu.compare_attention((2, 16), torch.float32, 40, rounds=2, device="cpu")
    assert set(table["way"]) >= {gpu.PLAIN, gpu.SDPA}
    assert (table.loc[table["way"] == gpu.PLAIN, "times_as_fast"] == 1).all()
    monkeypatch.setattr(gpu, "ways", lambda dtype: {"wrong": lambda q, k, v: v})
    with pytest.raises(AssertionError, match="wrong is off by"):
        gpu.compare_attention((2, 16), torch.float32, 40, rounds=1, device="cpu")


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    assert gpu.main() == 2
    assert "needs an NVIDIA GPU" in capsys.readouterr().err


def test_what_the_text_says_of_the_stored_tables():
    folder = Path(gpu.__file__).parent
    sweep = pd.read_csv(folder / "gpu_sweep.csv").set_index(PLACE)["gain"].sort_index()
    cached = sweep.xs(benchmark.PREALLOCATED, level="contender")
    assert (cached["course", 1] < 1).all()
    assert cached["course", 64, 100] < 1 < cached["course", 64, 500]
    assert 2 < cached["course", 64, 1000] < 3
    assert cached["L", 1, 100] < 1 < cached["L", 1, 500] < cached["L", 1, 1000] < 2
    flash = pd.read_csv(folder / "gpu_flash.csv")
    assert set(flash["card"]) == {"NVIDIA H100 80GB HBM3"}
