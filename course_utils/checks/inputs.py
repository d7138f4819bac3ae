"""What answers are tried on: drawn numbers of all sizes, in all the ways they lie in memory."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from hypothesis import strategies as st
from torch import Tensor

ROUNDING = (torch.float16, torch.bfloat16)
MOST_SHOWN = 12
SCALES = (1.0, 1.0, 1.0, 0.0, 1e-3, 30.0, 1e3)
OFFSETS = (0.0, 0.0, 0.0, 1.0, -5.0, 1e3, -1e3)


def in_one_piece(x: Tensor) -> Tensor:
    return x


def column_by_column(x: Tensor) -> Tensor:
    return x.transpose(-2, -1).contiguous().transpose(-2, -1) if x.dim() > 1 else x


def every_second_number(x: Tensor) -> Tensor:
    return torch.stack([x, torch.zeros_like(x)], dim=-1)[..., 0]


LAYOUTS = (in_one_piece, in_one_piece, column_by_column, every_second_number)


@st.composite
def tensors(
    draw: st.DrawFn,
    shape: Sequence[int],
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.float64),
    scales: Sequence[float] = SCALES,
    offsets: Sequence[float] = OFFSETS,
    layouts: Sequence[Callable[[Tensor], Tensor]] = LAYOUTS,
) -> Tensor:
    """Drawn numbers (shape), each row with a scale and an offset of its own.

    The first of the dtypes, scales, offsets and layouts are the simplest ones: examples are made
    smaller towards them, and numbers towards 0.
    """
    rows, last = math.prod(shape[:-1]), shape[-1]
    numbers = [_near_zero(one) for one in draw(_bytes(rows * last))]
    step = draw(st.sampled_from((0.5, math.log(2))))
    x = torch.tensor(numbers, dtype=torch.float64).view(rows, last) * step
    levels = draw(_bytes(rows)), draw(_bytes(rows))
    for row, scale, offset in zip(x, *levels, strict=True):
        row.mul_(scales[scale % len(scales)]).add_(offsets[offset % len(offsets)])
    x = x.view(tuple(shape)).to(draw(st.sampled_from(dtypes)))
    return draw(st.sampled_from(layouts))(x)


def _bytes(number: int) -> st.SearchStrategy[bytes]:
    """So many bytes, drawn as one choice: hypothesis is slow where there are many choices."""
    return st.binary(min_size=number, max_size=number)


def _near_zero(byte: int) -> int:
    """A number from -6 to 6; the smaller the byte, the nearer to 0: 0, 1, -1, 2, -2, ..."""
    far = byte % 13
    return (far + 1) // 2 if far % 2 else -(far // 2)


def random(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal random numbers that depend on the seed alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@dataclass(frozen=True)
class Call:
    """What a function is called with; `name` is the function's, for messages."""

    name: str
    args: tuple
    options: dict = field(default_factory=dict)

    def copied(self) -> "Call":
        """The same call with tensors of its own, which lie in memory in the same way."""
        return replace(self, args=copy.deepcopy(self.args), options=copy.copy(self.options))

    def double(self) -> "Call":
        """The same call in float64."""
        return replace(self, args=tuple(_double(arg) for arg in self.args))

    def with_gradients(self) -> "Call":
        """The same call with arguments that ask for gradients, where they can."""
        own = self.copied()
        for x in own.args:
            if isinstance(x, Tensor) and x.is_floating_point():
                x.requires_grad_()
        return own

    def __str__(self) -> str:
        parts = [shown(arg) for arg in self.args]
        parts += [f"{name}={shown(value)}" for name, value in self.options.items()]
        return f"{self.name}({', '.join(parts)})"


def _double(x: object) -> object:
    return x.detach().double() if isinstance(x, Tensor) and x.is_floating_point() else x


def shown(x: object) -> str:
    """A value as one would write it down; a large tensor by its shape."""
    if not isinstance(x, Tensor):
        return repr(x)
    notes = [] if x.dtype in (torch.float32, torch.int64, torch.bool) else [str(x.dtype)]
    notes += [] if x.is_contiguous() else ["not contiguous"]
    if x.numel() > MOST_SHOWN:
        return " ".join([f"<tensor {tuple(x.shape)}", *notes]) + ">"
    return ", ".join([f"tensor({written(x)}", *notes]) + ")"


def written(x: Tensor) -> str:
    """The numbers of a small tensor, to five digits: [[1, 0.5]]."""
    if x.dim():
        return f"[{', '.join(written(part) for part in x)}]"
    return f"{x.item():.5g}" if x.is_floating_point() else str(x.item())
