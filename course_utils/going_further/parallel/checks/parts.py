"""What the check cell of the cut layer calls: who holds what (chapter 11)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from ....checks.common import is_stub, raised, verdict
from ....checks.judged import Answer, judge
from ....transformer import DecoderLayer
from ..groups import Group

ROWS = ("W_q.weight", "W_k.weight", "W_v.weight", "fc1.weight", "fc1.bias")
COLUMNS = ("W_o.weight", "fc2.weight")
Split = Callable[[dict[str, Tensor], Group, int], dict[str, Tensor]]


@dataclass(frozen=True)
class Layer:
    """A layer, and one of the ranks that are to share it."""

    rank: int
    size: int
    num_heads: int
    d_head: int
    d_ff: int
    dtype: torch.dtype = torch.float64
    first: int = 0

    def numbered(self) -> dict[str, Tensor]:
        """The parameters, in which no two numbers are the same."""
        layer = DecoderLayer(self.num_heads * self.d_head, self.d_ff, self.num_heads)
        start, numbered = self.first, {}
        for name, tensor in layer.state_dict().items():
            numbers = torch.arange(start, start + tensor.numel())
            numbered[name] = (numbers.view(tensor.shape) / 3).to(self.dtype)
            start += tensor.numel()
        return numbered

    def refused(self) -> str:
        """What cannot be shared equally, or nothing."""
        if self.num_heads % self.size:
            return f"{self.num_heads} heads"
        return f"{self.d_ff} hidden units" if self.d_ff % self.size else ""

    def __str__(self) -> str:
        heads, units = f"{self.num_heads} heads of {self.d_head}", f"{self.d_ff} hidden units"
        return f"Rank {self.rank} of {self.size}, a layer with {heads} and {units}:"


@st.composite
def _layers(draw: st.DrawFn) -> Layer:
    size = draw(st.one_of(st.integers(1, 4), st.just(8)))
    share = draw(st.integers(1, 2))
    num_heads = draw(st.sampled_from((share * size, draw(st.integers(1, 6)))))
    d_ff = draw(st.sampled_from((draw(st.integers(1, 4)) * size, draw(st.integers(1, 9)))))
    dtype = draw(st.sampled_from((torch.float64, torch.float32)))
    rank, d_head, first = (draw(st.integers(*ends)) for ends in ((0, size - 1), (1, 3), (0, 9)))
    return Layer(rank, size, num_heads, d_head, d_ff, dtype, first)


FIRST = [
    *(Layer(rank, size, 4, 4, 24) for size in (1, 2, 4) for rank in range(size)),
    Layer(0, 4, 6, 4, 24),
    Layer(0, 4, 4, 4, 18),
]


def _played(split_layer: Split) -> Answer:
    """The answer to a `Layer`: nothing, or an AssertionError that says what is wrong."""

    def answer(layer: Layer) -> None:
        whole, given = layer.numbered(), layer.numbered()
        group, refused = Group(layer.rank, layer.size), layer.refused()
        came_in = dict(given)
        try:
            part = split_layer(given, group, layer.num_heads)
        except Exception as error:
            if is_stub(error):
                raise
            if refused and isinstance(error, ValueError):
                return
            raise AssertionError(raised(error) + "; expected ValueError" * bool(refused)) from error
        if refused:
            raise AssertionError(
                f"{refused} have no equal parts for {layer.size} ranks: raise ValueError. Parts "
                "that do not fit each other give wrong numbers further on, not an error"
            )
        if given.keys() != came_in.keys() or any(given[k] is not came_in[k] for k in given):
            raise AssertionError("changes the dict that came in; make a new one")
        for name, tensor in whole.items():
            if not torch.equal(given[name], tensor):
                raise AssertionError(f"changes {name} that came in; work on a new tensor")
        if not isinstance(part, dict):
            raise AssertionError(
                f"gives a {type(part).__name__}, expected a dict with the names that came in"
            )
        if part.keys() != whole.keys():
            missing, new = sorted(whole.keys() - part), sorted(map(str, part.keys() - whole))
            raise AssertionError(
                "expected a dict with the names that came in, each whole or cut; missing: "
                f"{', '.join(missing) or 'none'}; new: {', '.join(new) or 'none'}"
            )
        for name, tensor in whole.items():
            _check_part(name, part[name], tensor, group)

    return answer


def _check_part(name: str, found: object, whole: Tensor, group: Group) -> None:
    """Raise AssertionError unless `found` is what a rank holds of a layer's parameter."""
    dim = 0 if name.endswith(ROWS) else 1 if name.endswith(COLUMNS) else None
    parts = [whole] * group.size if dim is None else whole.chunk(group.size, dim)
    expected = parts[group.rank]
    if not isinstance(found, Tensor):
        kind = "None" if found is None else f"a {type(found).__name__}"
        raise AssertionError(f"{name} is {kind}, expected a tensor")
    if found.dtype != whole.dtype:
        raise AssertionError(f"{name} has dtype {found.dtype}, expected {whole.dtype}")
    if found.shape != expected.shape:
        reason = "Every rank needs it whole"
        if name.endswith("fc2.bias"):
            reason = "It belongs to the sum over the ranks, not to a part: it stays whole"
        elif dim == 0:
            reason = "nn.Linear keeps (D_out, D_in): a part of the outputs is a part of dimension 0"
        elif dim == 1:
            reason = (
                "Its inputs are what this rank has made. nn.Linear keeps (D_out, D_in): a part of "
                "the inputs is a part of dimension 1"
            )
        raise AssertionError(
            f"{name} has shape {tuple(found.shape)}, expected {tuple(expected.shape)}. {reason}"
        )
    if torch.equal(found, expected):
        return
    whose = [rank for rank, part in enumerate(parts) if torch.equal(found, part)]
    if whose:
        raise AssertionError(f"{name} is the part of rank {whose[0]}. Which part is this rank's")
    if dim is None or group.size == 1:
        raise AssertionError(f"{name} has other numbers than came in: here it stays whole")
    raise AssertionError(
        f"{name} has the right shape and other numbers. Parts are neighbours in one piece (the "
        "first rank has the first of them), so that a head's numbers stay next to each other"
    )


@verdict
def check_split_layer(split_layer: Split) -> str:
    """Chapter 11, exercise 1. Returns a verdict; raises AssertionError on a wrong cut."""
    judge(_played(split_layer), lambda layer: None, _layers(), first=FIRST, number=100)
    return "split_layer is right: for 1, 2 and 4 ranks, and it refuses what has no equal parts."
