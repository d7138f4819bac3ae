"""How fast can a token be? Bytes over bandwidth, and what else is paid for (chapter 07)."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.benchmark import timer

from .products import ways


def weight_bytes(model: nn.Module) -> int:
    """Bytes of weights that one token reads: all of them, but only a row of either embedding."""
    tables = (model.token_embedding.weight, model.pos_embedding.weight)
    unread = sum(table[1:].nbytes for table in tables)
    return sum(parameter.nbytes for parameter in model.parameters()) - unread


def cache_bytes(model: nn.Module, tokens: int) -> int:
    """Bytes of the keys and values of that many positions, for one sequence."""
    numbers = 2 * model.num_layers * tokens * model.num_heads * model.d_head
    return numbers * model.token_embedding.weight.element_size()


def in_turns(
    tasks: dict[str, Callable[[], object]],
    rounds: int = 15,
    calls: int = 1,
    settled: bool = False,
) -> pd.DataFrame:
    """Seconds per call: one row per round, one column per task, after a round that is not counted.

    In each round every task runs `calls` times. If `settled`, a call before them is not counted:
    it finds other tasks' numbers in the processor's caches.
    """
    seconds = {name: [] for name in tasks}
    for _ in range(rounds + 1):
        for name, task in tasks.items():
            if settled:
                task()
            start = timer()
            for _ in range(calls):
                task()
            seconds[name].append((timer() - start) / calls)
    return pd.DataFrame(seconds).iloc[1:]


def readers(size: int) -> dict[str, Callable[[], object]]:
    """Ways to move that many bytes between memory and the processor, with PyTorch's threads of now.

    A sum over a tensor; a copy, which reads one half and writes the other; and the products of
    `products.ways`, over a matrix of that size.
    """
    words = torch.ones(max(1, size // 4096), 1024)
    half, x, y = len(words) // 2, torch.ones(1, 1024), torch.empty(1, len(words))
    found: dict[str, Callable[[], object]] = {"sum": words.sum}
    if half:
        found["copy"] = lambda: words[:half].copy_(words[half : 2 * half])
    for name, way in ways(torch.float32).items():
        product = way.of(words.T.contiguous().T if way.by_columns else words)
        found[name] = lambda product=product: product(x, out=y)
    return found


def bandwidth(sizes: Sequence[int], rounds: int = 7) -> pd.DataFrame:
    """Bytes per second, a row for each size in bytes, a column for each of the `readers`: medians.

    The fastest of them is the nearest to what the machine can do. Each reads the same bytes again
    and again, so that few come from the processor's cache and many from memory.
    """
    found = {}
    for size in sizes:
        calls = max(1, 16_000_000 // size)
        with torch.no_grad():
            seconds = in_turns(readers(size), rounds, calls)
        found[size] = size / seconds.median()
    return pd.DataFrame(found).T


class Calls(TorchDispatchMode):
    """Counts, while it is active, which operations PyTorch is asked for, and what `cat` copies.

    `count` by name of the operation; `copied` in bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.copied = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        self.count[name] += 1
        result = func(*args, **(kwargs or {}))
        if name == "cat":
            self.copied += result.nbytes
        return result


def in_parts(weight: Tensor, x: Tensor, parts: int) -> Tensor:
    """x @ weight.T (1, D_out) for one row x (1, D_in), as a batch of `parts` products.

    `parts` must divide D_out of the weight (D_out, D_in). The weight is on the left and stays where
    it is.
    """
    split = weight.view(parts, -1, weight.size(1))
    return torch.bmm(split, x.T.expand(parts, -1, -1)).view(1, -1)


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values (D_out, D_in) and scale (D_out, 1), whose product is nearly the weight.

    Symmetric: the largest number of a row becomes 127 or -127. A row of zeros stays one.
    """
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    values = (weight / scale.where(scale > 0, 1)).round().to(torch.int8)
    return values, scale
