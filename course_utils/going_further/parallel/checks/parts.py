"""What the check cell of the cut layer calls: who holds what (chapter 11)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ....checks.common import verdict
from ....transformer import DecoderLayer
from ..groups import Group

ROWS = ("W_q.weight", "W_k.weight", "W_v.weight", "fc1.weight", "fc1.bias")
COLUMNS = ("W_o.weight", "fc2.weight")


def _numbered(d_model: int, d_ff: int, num_heads: int) -> dict[str, Tensor]:
    """The parameters of a layer in which no two numbers are the same."""
    state = DecoderLayer(d_model, d_ff, num_heads).state_dict()
    start, numbered = 0, {}
    for name, tensor in state.items():
        numbered[name] = torch.arange(start, start + tensor.numel()).view(tensor.shape).double()
        start += tensor.numel()
    return numbered


@verdict
def check_split_layer(split_layer: Callable[..., dict[str, Tensor]]) -> str:
    """Chapter 11, exercise 1. Returns a verdict; raises AssertionError on a wrong cut."""
    whole = _numbered(16, 24, 4)
    for size in (1, 2, 4):
        for rank in range(size):
            part = split_layer(dict(whole), Group(rank, size), 4)
            if not isinstance(part, dict):
                raise AssertionError(
                    f"Expected a dict with the names that came in, found {type(part).__name__}."
                )
            if part.keys() != whole.keys():
                missing, extra = sorted(whole.keys() - part), sorted(part.keys() - whole)
                raise AssertionError(
                    "Expected a dict with the names that came in, each whole or cut; missing: "
                    f"{', '.join(missing) or 'none'}; new: {', '.join(extra) or 'none'}."
                )
            for name, tensor in whole.items():
                _check_part(name, part[name], tensor, rank, size)
    for d_model, d_ff, heads, size, what in (
        (24, 24, 6, 4, "6 heads"),
        (16, 18, 4, 4, "18 hidden"),
    ):
        try:
            split_layer(_numbered(d_model, d_ff, heads), Group(0, size), heads)
        except ValueError:
            continue
        except AssertionError:
            raise AssertionError(
                f"{what} were refused to {size} ranks with an assert. Raise ValueError instead."
            ) from None
        raise AssertionError(
            f"{what} were shared by {size} ranks without complaint. Raise ValueError: a part that "
            "begins inside a head gives wrong numbers, not an error, further on."
        )
    return "split_layer is right: for 1, 2 and 4 ranks, and it refuses what has no equal parts."


def _check_part(name: str, found: object, whole: Tensor, rank: int, size: int) -> None:
    """Raise AssertionError unless `found` is what a rank holds of a layer's parameter."""
    where = f"Rank {rank} of {size}, {name}"
    dim = 0 if name.endswith(ROWS) else 1 if name.endswith(COLUMNS) else None
    expected = whole if dim is None else whole.chunk(size, dim)[rank]
    if not isinstance(found, Tensor):
        raise AssertionError(f"{where} is a {type(found).__name__}, expected a tensor.")
    if found.shape != expected.shape:
        reason = "Every rank needs it whole."
        if name.endswith("fc2.bias"):
            reason = "It belongs to the sum over the ranks, not to a part: it stays whole."
        elif dim == 0:
            reason = (
                "nn.Linear keeps (D_out, D_in): a part of the outputs is a part of dimension 0."
            )
        elif dim == 1:
            reason = (
                "Its inputs are what this rank has made. nn.Linear keeps (D_out, D_in): a part of "
                "the inputs is a part of dimension 1."
            )
        raise AssertionError(
            f"{where} has shape {tuple(found.shape)}, expected {tuple(expected.shape)}. {reason}"
        )
    if torch.equal(found, expected):
        return
    if rank and dim is not None and torch.equal(found, whole.chunk(size, dim)[0]):
        raise AssertionError(f"{where} is the part of rank 0. Which part is this rank's?")
    raise AssertionError(
        f"{where} has the right shape and other numbers. Parts are neighbours in one piece (the "
        "first rank has the first rows): a head's rows lie next to each other."
    )
