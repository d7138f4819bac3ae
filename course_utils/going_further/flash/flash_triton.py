"""`flash_attention` as one GPU kernel, in Triton (chapter 08).

    TRITON_INTERPRET=1 python -m course_utils.going_further.flash.flash_triton

runs it on a CPU, in Triton's interpreter, and compares it with the plain attention. On an NVIDIA
GPU leave the variable out. Triton comes with PyTorch's usual build for Linux, not with the CPU one.

The kernel is one program per tile of queries and per head. Nothing in it is ordered: the programs
run side by side, and each goes over the keys by itself.
"""

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...attention import attention, causal_mask

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit
def _forward(
    q_start,
    k_start,
    v_start,
    output_start,
    lse_start,
    num_queries,
    num_keys,
    scale,
    CAUSAL: tl.constexpr,
    D: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    """One tile of queries of one head; all between the loads and the stores stays on the chip."""
    head = tl.program_id(1)
    rows = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    numbers = tl.arange(0, D)
    inside = rows < num_queries
    at = (head * num_queries + rows)[:, None] * D + numbers[None, :]
    query = tl.load(q_start + at, mask=inside[:, None], other=0.0) * scale

    row_max = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    output = tl.zeros([QUERIES, D], tl.float32)
    past = num_keys - num_queries
    end = num_keys
    if CAUSAL:
        end = tl.minimum(num_keys, past + (tl.program_id(0) + 1) * QUERIES)
    for start in range(0, end, KEYS):
        columns = start + tl.arange(0, KEYS)
        there = columns < num_keys
        place = (head * num_keys + columns)[:, None] * D + numbers[None, :]
        keys = tl.load(k_start + place, mask=there[:, None], other=0.0)
        values = tl.load(v_start + place, mask=there[:, None], other=0.0)
        scores = tl.dot(query, tl.trans(keys), input_precision="ieee")
        visible = there[None, :]
        if CAUSAL:
            visible = visible & (columns[None, :] <= past + rows[:, None])
        scores = tl.where(visible, scores, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        shift = tl.where(new_max == float("-inf"), 0.0, new_max)
        decay = tl.exp(row_max - shift)
        weights = tl.exp(scores - shift[:, None])
        total = decay * total + tl.sum(weights, 1)
        output = decay[:, None] * output + tl.dot(weights, values, input_precision="ieee")
        row_max = new_max

    output = output / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(output_start + at, output, mask=inside[:, None])
    lse = row_max + tl.log(total)
    tl.store(lse_start + head * num_queries + rows, lse, mask=inside)


def flash_triton(
    q: Tensor, k: Tensor, v: Tensor, causal: bool = False, tile: tuple[int, int] = (32, 32)
) -> tuple[Tensor, Tensor]:
    """As `flash_attention`, in float32: output (B, H, Q, d) and log-sum-exp (B, H, Q).

    d and both tile sizes must be powers of 2 of at least 16. Raises ValueError otherwise, and for
    another dtype.
    """
    batch, heads, num_queries, d = q.shape
    for name, size in (("d", d), ("tile", tile[0]), ("tile", tile[1])):
        if size < 16 or size & (size - 1):
            raise ValueError(f"{name}={size}: a GPU's matrix units want 16, 32, 64, 128, ...")
    if q.dtype != torch.float32:
        raise ValueError(f"q is {q.dtype}; this kernel is written for torch.float32.")
    q, k, v = (t.contiguous() for t in (q, k, v))
    output, lse = torch.empty_like(q), q.new_empty(batch, heads, num_queries)
    grid = (triton.cdiv(num_queries, tile[0]), batch * heads)
    sizes = {"CAUSAL": causal, "D": d, "QUERIES": tile[0], "KEYS": tile[1]}
    _forward[grid](q, k, v, output, lse, num_queries, k.size(-2), d**-0.5, **sizes)
    return output, lse


def main() -> None:
    """Compare the kernel with the plain attention on a few shapes, and say where it ran."""
    device = "cpu" if INTERPRETED else "cuda"
    torch.manual_seed(0)
    worst = 0.0
    shapes = [(1, 2, 70, 70, 32), (2, 1, 5, 64, 16), (1, 1, 33, 40, 64)]
    for batch, heads, num_queries, num_keys, d in shapes:
        q = torch.randn(batch, heads, num_queries, d, device=device)
        k, v = torch.randn(2, batch, heads, num_keys, d, device=device)
        for causal in (False, True):
            mask = causal_mask(num_queries, num_keys, q.device) if causal else None
            expected = attention(q.double(), k.double(), v.double(), mask)
            found, _ = flash_triton(q, k, v, causal)
            worst = max(worst, (found - expected).abs().max().item())
    where = "the interpreter, on the CPU" if INTERPRETED else torch.cuda.get_device_name()
    print(f"Triton {triton.__version__} in {where}: off by at most {worst:.0e} in float32")
    assert worst < 1e-5


if __name__ == "__main__":
    main()
