"""What the checks of FlashAttention share: calls with names, results by name (chapter 08)."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from ....attention import softmax
from ....checks.inputs import LAYOUTS, MOST_SHOWN, Call, random, shown
from ....checks.judged import Answer, calling

HIDDEN = -math.inf
FLOATS = (torch.float64, torch.float32)
SCALES = (1.0, 1.0, 0.0, 1e-3, 30.0)
OFFSETS = (0.0, 0.0, 1.0, -5.0)


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp with all scores at once; a row that sees no key: 0 and -inf."""
    scores = (q / math.sqrt(q.size(-1))) @ k.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, HIDDEN)
    return softmax(scores) @ v, scores.logsumexp(dim=-1)


@dataclass(frozen=True)
class Named(Call):
    """A call whose arguments have names in messages; where they are many numbers, only shapes."""

    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        tensors = [x for x in self.args if isinstance(x, Tensor)]
        show = shown if sum(x.numel() for x in tensors) <= MOST_SHOWN else _shape
        given = zip(self.names, self.args, strict=False)
        return f"{self.name}({', '.join(f'{name}={show(value)}' for name, value in given)})"


def _shape(x: object) -> str:
    return f"tensor of {tuple(x.shape)}" if isinstance(x, Tensor) else shown(x)


def results(function: Callable, names: Sequence[str], on_nan: Callable[[Call], str]) -> Answer:
    """The answer to a `Call`: what the function returns, by name.

    What it leaves empty is NaN, and `on_nan` says what NaN comes from.
    """

    def answer(call: Call) -> dict[str, object]:
        with nan_where_empty():
            found = calling(function)(call)
        if not isinstance(found, tuple | list):
            found = () if found is None else (found,)
        if len(found) != len(names):
            raise AssertionError(
                f"returns {len(found)} of {len(names)} results: {', '.join(names)}"
            )
        for name, part in zip(names, found, strict=True):
            if isinstance(part, Tensor) and part.isnan().any():
                raise AssertionError(f"gives NaN (not a number) in {name}. {on_nan(call)}")
        return dict(zip(names, found, strict=True))

    return answer


def roughly(right: Answer, size: Callable[[Call], float]) -> Answer:
    """What `right` gives in float64, and beside it: as far as a rounding of numbers of that size.

    A result may be near 0 where its terms are not, and then no digit of it is sure.
    """

    def exact(call: Call) -> dict[str, Tensor]:
        eps = torch.finfo(call.args[0].dtype).eps
        return {name: x + eps * size(call) for name, x in right(call.double()).items()}

    return exact


def largest(*parts: Tensor) -> float:
    """More than the largest of all finite numbers, in size."""
    return 1 + max(torch.where(x.isfinite(), x, 0).abs().sum().item() for x in parts)


@contextlib.contextmanager
def nan_where_empty() -> Iterator[None]:
    """`torch.empty` gives NaN: what lies in memory might by chance be what belongs there."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        (torch.is_deterministic_algorithms_warn_only_enabled()),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def leading(draw: st.DrawFn) -> list[int]:
    """Batch and heads, or fewer."""
    return draw(st.sampled_from(([], [], [2], [1, 2])))


def numbers(draw: st.DrawFn, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Drawn numbers (shape), in half of the cases each row on a scale and a level of its own.

    Only in float64: with scores of 1000, two right answers in float32 are far apart.
    """
    x = random(draw(st.integers(0, 99)), *shape).round(decimals=1)
    if dtype == torch.float64 and draw(st.booleans()):
        for row in x.view(-1, shape[-1]) if x.numel() else ():
            row.mul_(draw(st.sampled_from(SCALES))).add_(draw(st.sampled_from(OFFSETS)))
    return draw(st.sampled_from(LAYOUTS))(x.to(dtype))


def sizes(draw: st.DrawFn) -> tuple[list[int], list[int], tuple[int, int]]:
    """The shapes of q and of k, and tiles that need not fit."""
    lead, d = leading(draw), draw(st.integers(1, 3))
    num_queries, num_keys = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    tile = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    return [*lead, num_queries, d], [*lead, num_keys, d], tile


def masks(draw: st.DrawFn, shape: Sequence[int]) -> Tensor:
    """Drawn True and False (shape); the simplest is all True."""
    size = math.prod(shape)
    bits = draw(st.integers(0, 2**size - 1))
    return torch.tensor([not bits >> i & 1 for i in range(size)]).bool().view(tuple(shape))


def joined(output: Tensor, lse: Tensor) -> Tensor:
    """Both in one tensor, for gradients."""
    return torch.cat([output, lse.unsqueeze(-1)], dim=-1)
