"""The sweep of notebook 06 and the attention of chapter 08, timed on an NVIDIA GPU.

    python benchmarks/gpu.py [--rounds 5] [--out benchmarks/gpu]

Writes OUT_sweep.csv (total seconds of a generation, by model, contender and number of tokens) and
OUT_flash.csv (milliseconds and peak memory of one attention, by shape, number type, length and
way), and prints both. It needs a machine on which `torch.cuda.is_available()`, and a few minutes.

Both are measured as in the notebooks: warm-up, a clock that waits for the device, contenders in
turns, medians and quartiles over the rounds. `gain` and `times_as_fast` are medians of the ratios
within a round. The models have the course's fused attention; all but the course's own have random
weights, which cost the same time.

The two CSVs beside this file are from an NVIDIA H100 with PyTorch 2.11 and Triton 3.6, L from a
second session of the same kind; eight texts of L side by side are not in them.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.benchmark import Timer

# Before this file's folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.engines import SHAPES
from course_utils import benchmark
from course_utils.attention import attention
from course_utils.transformer import DecoderOnlyTransformer, fuse_attention, load_model

PROMPT = 10  # tokens
WINDOW = 20  # the tokens before a length, of which `token_ms` is the median
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
HEADS = ((4, 32), (16, 64))  # number of heads, numbers per head; the first are chapter 08's
PLAIN, KERNEL, SDPA = "plain", "course, in Triton", "PyTorch's SDPA"
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


@dataclass(frozen=True)
class Run:
    """One sweep: the course's model or a shape of `engines.SHAPES`, texts side by side."""

    model: str
    batch: int
    tokens: int = max(benchmark.LENGTHS)

    def make(self, device: str) -> DecoderOnlyTransformer:
        if self.model == "course":
            return fuse_attention(load_model(device=device))
        torch.manual_seed(0)
        with torch.device(device):
            return fuse_attention(DecoderOnlyTransformer(*SHAPES[self.model], dropout=0.0))


RUNS = (Run("course", 1), Run("course", 64), Run("L", 1), Run("L", 8, tokens=500))


def sweep(run: Run, rounds: int, device: str = "cuda") -> pd.DataFrame:
    """One row per contender and length: seconds of the whole generation, and what is gained."""
    model = run.make(device)
    prompt = torch.ones(run.batch, PROMPT, dtype=torch.long, device=device)
    times = benchmark.sweep(model, prompt, [run.tokens] * rounds)
    times["token"] = times.groupby(["contender", "round"])["step"].transform(
        lambda step: step.rolling(WINDOW, min_periods=1).median()
    )
    rows = []
    for tokens in (n for n in benchmark.LENGTHS if n <= run.tokens):
        at = times[times["tokens"] == tokens].pivot(index="round", columns="contender")
        for contender in benchmark.CACHES:
            total = at["total"][contender]
            row = {"model": run.model, "batch": run.batch, "tokens": tokens}
            row |= {"contender": contender, "seconds": total.median()}
            row |= {f"q{q}": total.quantile(q / 100) for q in (25, 75)}
            row["token_ms"] = 1e3 * at["token"][contender].median()
            row["gain"] = (at["total"][benchmark.NO_CACHE] / total).median()
            rows.append(row | {"rounds": rounds})
    return pd.DataFrame(rows)


def ways(dtype: torch.dtype) -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    """The ways to compute attention, on q, k and v (B, H, N, d); the course's kernel is float32."""
    found = {PLAIN: attention, SDPA: F.scaled_dot_product_attention}
    if dtype == torch.float32 and torch.cuda.is_available():
        from course_utils.going_further.flash.flash_triton import flash_triton

        found[KERNEL] = lambda q, k, v: flash_triton(q, k, v)[0]
    return found


def peak_bytes(compute: Callable[[], Tensor]) -> int:
    """The most that was allocated on the GPU while it ran, less what was there before."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    compute()
    return torch.cuda.max_memory_allocated() - before


def compare_attention(
    heads: tuple[int, int], dtype: torch.dtype, length: int, rounds: int, device: str = "cuda"
) -> pd.DataFrame:
    """One row per way: milliseconds, peak memory and the largest error against float64.

    Raises AssertionError if a way is wrong.
    """
    torch.manual_seed(length)
    q, k, v = torch.randn(3, 1, heads[0], length, heads[1], device=device).to(dtype)
    expected = attention(q.double(), k.double(), v.double())
    tasks, found, peaks, calls, seconds = ways(dtype), {}, {}, {}, {}
    for name, way in tasks.items():
        found[name] = (way(q, k, v) - expected).abs().max().item()
        assert found[name] < TOLERANCE[dtype], f"{name} is off by {found[name]}"
        peaks[name] = peak_bytes(lambda way=way: way(q, k, v)) if device == "cuda" else 0
    del expected
    timers = {name: Timer("way(q, k, v)", globals={"way": way, "q": q, "k": k, "v": v})
              for name, way in tasks.items()}  # fmt: skip
    for name, task in timers.items():
        calls[name] = max(1, int(0.02 / task.timeit(3).median))
    for _ in range(rounds):
        for name, task in timers.items():
            seconds.setdefault(name, []).append(task.timeit(calls[name]).median)
    times = 1e3 * pd.DataFrame(seconds)
    rows = {"heads": heads[0], "d": heads[1], "dtype": str(dtype)[6:], "length": length}
    return pd.DataFrame(
        [
            rows
            | {"way": name, "ms": times[name].median()}
            | {f"q{q}": times[name].quantile(q / 100) for q in (25, 75)}
            | {"times_as_fast": (times[PLAIN] / times[name]).median()}
            | {"peak_MB": peaks[name] / 1e6, "error": found[name], "rounds": rounds}
            for name in times
        ]
    )


def where() -> dict[str, str]:
    """The card, and what computed on it."""
    return {"card": torch.cuda.get_device_name(), "torch": torch.__version__}


def write(parts: list[pd.DataFrame], path: Path) -> None:
    """All that is measured so far, so that a run that is stopped leaves something."""
    table = pd.concat(parts, ignore_index=True).assign(**where())
    table.to_csv(path, index=False, float_format="%.6g")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(""))
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("torch.cuda.is_available() is False: this needs an NVIDIA GPU.", file=sys.stderr)
        return 2
    flash, sweeps = [], []
    for heads in HEADS:
        for dtype in TOLERANCE:
            for length in LENGTHS:
                flash.append(compare_attention(heads, dtype, length, 3 * given.rounds))
                write(flash, given.out.with_name(f"{given.out.name}_flash.csv"))
    print(pd.concat(flash).drop(columns="rounds").to_string(index=False, float_format="%.3g"))
    for run in RUNS:
        sweeps.append(sweep(run, given.rounds))
        write(sweeps, given.out.with_name(f"{given.out.name}_sweep.csv"))
        print(sweeps[-1].to_string(index=False, float_format="%.4g"), flush=True)
    print(", ".join(where().values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
