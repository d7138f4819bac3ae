"""Exact attention in tiles, which never stores a score for every pair of positions (chapter 08).

    output, lse = flash_attention(q, k, v, causal=True)

A tile of queries meets one tile of keys after the other, and keeps three things of all it has met:
the largest score of each row, the sum of the powers, and the values weighted by them.

Shapes: Q queries, K keys, d numbers per query, key and value, S parts of the keys; "..." stands for
any leading dimensions (batch, heads). All is computed in the dtype of q; a kernel for 16-bit
numbers keeps the state in float32.
Sources: Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al.,
"FlashAttention", 2022; Dao, "FlashAttention-2", 2023, whose order of the two loops this is.
"""

import math
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...attention import softmax

SHAPED = ("empty", "full", "new_", "ones", "zeros")  # operations that look at shapes only
State = tuple[Tensor, Tensor, Tensor]  # largest score (..., Q, 1), sum (..., Q, 1), (..., Q, d)


def nothing_yet(q: Tensor) -> State:
    """The state of queries (..., Q, d) that have met no key."""
    column = q.new_zeros(*q.shape[:-1], 1)
    return column - math.inf, column, torch.zeros_like(q)


def absorb(state: State, scores: Tensor, v: Tensor) -> State:
    """The state after K more keys with these scores (..., Q, K) and values v (..., K, d).

    A score of -inf is a key that the query must not see. A row may have met no visible key yet.
    Source: Milakov & Gimelshein, 2018, algorithm 3; Dao et al., 2022, section 3.1.
    """
    row_max, total, output = state
    new_max = torch.maximum(row_max, scores.amax(dim=-1, keepdim=True))
    shift = new_max.masked_fill(new_max == -math.inf, 0.0)
    decay = torch.exp(row_max - shift)
    weights = torch.exp(scores - shift)
    total = decay * total + weights.sum(dim=-1, keepdim=True)
    return new_max, total, decay * output + weights @ v


def finish(state: State) -> tuple[Tensor, Tensor]:
    """Output (..., Q, d) and log-sum-exp of the scores (..., Q); no key met: 0 and -inf."""
    row_max, total, output = state
    lse = (row_max + total.log()).squeeze(-1)
    return output / total.masked_fill(total == 0, 1.0), lse


def tiles(length: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` positions that cover `length`. Raises ValueError for a size < 1."""
    if size < 1:
        raise ValueError(f"A tile of {size} positions: choose a size of at least 1.")
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def later(rows: slice, columns: slice, past: int, device: torch.device | None = None) -> Tensor:
    """(rows, columns), True where the key comes after the query; `past` keys come before query 0.

    One tile of what `causal_mask` hides.
    """
    query_position = past + torch.arange(rows.start, rows.stop, device=device)
    key_position = torch.arange(columns.start, columns.stop, device=device)
    return key_position[None, :] > query_position[:, None]


def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    tile: tuple[int, int] = (64, 64),
) -> tuple[Tensor, Tensor]:
    """Attention of q (..., Q, d) on k, v (..., K, d): output (..., Q, d), log-sum-exp (..., Q).

    `mask` (..., Q, K) is True where a query may look. With `causal` the queries are the last Q of
    the K positions, and tiles of keys that all come later are left out. `tile` is how many queries
    and how many keys a tile has. A query that sees no key gets 0 and a log-sum-exp of -inf.
    Raises ValueError for a tile size below 1.
    Source: Dao, "FlashAttention-2", 2023, algorithm 1.
    """
    past = k.size(-2) - q.size(-2)
    output, lse = torch.empty_like(q), q.new_empty(q.shape[:-1])
    for rows in tiles(q.size(-2), tile[0]):
        query = q[..., rows, :] / math.sqrt(q.size(-1))
        state = nothing_yet(query)
        for columns in tiles(past + rows.stop if causal else k.size(-2), tile[1]):
            scores = query @ k[..., columns, :].transpose(-2, -1)
            if mask is not None:
                scores = scores.masked_fill(~mask[..., rows, columns], -math.inf)
            if causal:
                scores = scores.masked_fill(later(rows, columns, past, q.device), -math.inf)
            state = absorb(state, scores, v[..., columns, :])
        output[..., rows, :], lse[..., rows] = finish(state)
    return output, lse


def merge(outputs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """Attention on all keys from attention on S parts of them.

    outputs (S, ..., Q, d) and log-sum-exps (S, ..., Q) of the parts -> (..., Q, d) and (..., Q).
    The weights of the parts are a softmax of their log-sum-exps. A part that saw no key has -inf
    there and counts for nothing.
    Source: Dao et al., "Flash-Decoding for long-context inference", 2023.
    """
    shares = softmax(lses.movedim(0, -1)).movedim(-1, 0)
    return (shares.unsqueeze(-1) * outputs).sum(dim=0), lses.logsumexp(dim=0)


def flash_decode(q: Tensor, k: Tensor, v: Tensor, splits: int) -> Tensor:
    """Attention of q (..., Q, d) on all of k, v (..., K, d), by parts that need not wait.

    Parts may be empty: there may be more of them than keys.
    """
    parts = zip(k.tensor_split(splits, dim=-2), v.tensor_split(splits, dim=-2), strict=True)
    outputs, lses = zip(*(flash_attention(q, keys, values) for keys, values in parts), strict=True)
    return merge(torch.stack(outputs), torch.stack(lses))[0]


def flash_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    output: Tensor,
    lse: Tensor,
    grad: Tensor,
    causal: bool = False,
    tile: tuple[int, int] = (64, 64),
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, from what `flash_attention` returned and the gradient of its output.

    The weights are not remembered: a tile of them is exp(scores - lse), computed once more.
    Source: Dao et al., "FlashAttention", 2022, algorithm 4; Dao, 2023, algorithm 2.
    """
    past, scale = k.size(-2) - q.size(-2), 1 / math.sqrt(q.size(-1))
    grad_q, grad_k, grad_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for rows in tiles(q.size(-2), tile[0]):
        query, grad_rows = q[..., rows, :] * scale, grad[..., rows, :]
        mean = (grad_rows * output[..., rows, :]).sum(dim=-1, keepdim=True)
        for columns in tiles(past + rows.stop if causal else k.size(-2), tile[1]):
            keys, values = k[..., columns, :], v[..., columns, :]
            weights = torch.exp(query @ keys.transpose(-2, -1) - lse[..., rows].unsqueeze(-1))
            if causal:
                weights = weights.masked_fill(later(rows, columns, past, q.device), 0.0)
            grad_scores = weights * (grad_rows @ values.transpose(-2, -1) - mean)
            grad_q[..., rows, :] += grad_scores @ keys * scale
            grad_k[..., columns, :] += grad_scores.transpose(-2, -1) @ query
            grad_v[..., columns, :] += weights.transpose(-2, -1) @ grad_rows
    return grad_q, grad_k, grad_v


class FlashAttention(torch.autograd.Function):
    """`flash_attention` with `flash_backward`: what it keeps in between is linear in Q and K.

    `FlashAttention.apply(q, k, v, causal, tile)` returns the output (..., Q, d).
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool, tile: tuple[int, int]
    ) -> Tensor:
        output, lse = flash_attention(q, k, v, causal=causal, tile=tile)
        ctx.save_for_backward(q, k, v, output, lse)
        ctx.how = causal, tile
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        return *flash_backward(*ctx.saved_tensors, grad, *ctx.how), None, None


class Memory(TorchDispatchMode):
    """Counts, while it is active, the bytes that PyTorch's operations move, and what they hold.

    Every operation reads its inputs and writes its result. That is free where they lie in fast
    memory: results of at most `fast` bytes. All else is slow memory: what was there before, larger
    results, and tensors made empty, to be filled later. An operation is counted as reading each
    input once: for a kernel that goes over an input again and again, it is a lower bound.

    `read` and `written` in bytes, from and to slow memory; `peak`, the most bytes that what was
    made here took at a time, and `fast_peak`, the most of them in fast memory.
    """

    def __init__(self, fast: int = 0) -> None:
        super().__init__()
        self.fast = fast
        self.read = self.written = 0
        self.held = {True: {}, False: {}}  # in fast memory or not: bytes by storage
        self.peak = self.fast_peak = 0

    @property
    def moved(self) -> int:
        return self.read + self.written

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name, inputs = func.overloadpacket.__name__, _tensors((args, kwargs))
        known = {id(tensor.untyped_storage()) for tensor in inputs}
        changed = [
            arg
            for arg, declared in zip(args, func._schema.arguments, strict=False)
            if isinstance(arg, Tensor) and declared.alias_info and declared.alias_info.is_write
        ]
        new = [t for t in _tensors(result) if id(t.untyped_storage()) not in known]
        for tensor in new:
            self.keep(tensor.untyped_storage(), name)
        if changed or (new and not name.startswith(SHAPED)):  # and not only a view
            ignored = changed if name in ("copy_", "fill_", "zero_") else []
            self.read += sum(self.slow(t) for t in inputs if all(t is not i for i in ignored))
        filled = [] if "empty" in name else new
        self.written += sum(self.slow(tensor) for tensor in changed + filled)
        return result

    def slow(self, tensor: Tensor) -> int:
        """Bytes of a tensor, or of the part that a view shows; 0 if it is in fast memory."""
        in_fast_memory = id(tensor.untyped_storage()) in self.held[True]
        return 0 if in_fast_memory else tensor.numel() * tensor.element_size()

    def keep(self, storage: torch.UntypedStorage, made_by: str) -> None:
        held = self.held[storage.nbytes() <= self.fast and "empty" not in made_by]
        held[id(storage)] = storage.nbytes()
        weakref.finalize(storage, held.pop, id(storage))
        in_fast_memory, slow = (sum(self.held[where].values()) for where in (True, False))
        self.fast_peak = max(self.fast_peak, in_fast_memory)
        self.peak = max(self.peak, in_fast_memory + slow)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def peak_bytes(task: Callable[[], object]) -> int:
    """The most bytes that a call held at a time in PyTorch's allocator, beyond what was there.

    The scratch memory inside of kernels is in it; `Memory.peak` cannot see that.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # or the profiler writes a line for each call
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        task()
    events = record.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = most = 0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most
