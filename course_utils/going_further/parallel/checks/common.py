"""What the checks of many processes share: an answer that runs on several ranks (chapter 11)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ....checks.common import is_stub, raised
from ....checks.inputs import shown
from ....checks.judged import Answer
from ..groups import Group, in_threads


@dataclass(frozen=True)
class OnRanks:
    """A function, on how many ranks it runs, and the tensors that are given to them."""

    name: str
    size: int
    tensors: tuple[Tensor, ...]
    seed: int = 0

    def double(self) -> "OnRanks":
        """The same in float64."""
        doubled = (x.double() if x.is_floating_point() else x for x in self.tensors)
        return replace(self, tensors=tuple(doubled))

    def __str__(self) -> str:
        given = ", ".join(map(shown, self.tensors))
        return f"{self.name} on {self.size} rank{'s' * (self.size > 1)} with {given}:"


ADVICE = {
    "incorrect number of gradients": "backward returns one gradient for each input of forward: "
    "that of x, and None for `group`",
}


def called(function: Callable, *given: object) -> object:
    """What a function of the answer returns; an error in it becomes a sentence."""
    try:
        return function(*given)
    except Exception as error:
        if is_stub(error):
            raise
        if "All ranks must" in str(error):
            raise  # the first cause may be another rank's
        advice = (f" ({advice})" for words, advice in ADVICE.items() if words in str(error))
        raise AssertionError(raised(error) + "".join(advice)) from error


def tensor_from(function: Callable, given: tuple, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """The tensor of that form which a function returns.

    Raises AssertionError if it is another, or if the function changes one that came in.
    """
    own = [x for x in given if isinstance(x, Tensor)]
    before = [x.detach().clone() for x in own]
    found = called(function, *given)
    if any(not torch.equal(x, as_it_was) for x, as_it_was in zip(own, before, strict=True)):
        raise AssertionError("changes a tensor that came in; work on a new one")
    if found is None:
        raise AssertionError("gives None: the function returns nothing")
    if not isinstance(found, Tensor):
        raise AssertionError(f"gives a {type(found).__name__}, expected a torch.Tensor")
    if found.shape != shape:
        one = "" if shape else ", one number"
        raise AssertionError(f"gives shape {tuple(found.shape)}, expected {tuple(shape)}{one}")
    if found.dtype != dtype:
        raise AssertionError(f"gives dtype {found.dtype}, expected {dtype}")
    return found


def gradients(result: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of the leaves, from a fixed weighting; 0 where there is none."""
    if not result.requires_grad:
        raise AssertionError(
            "gives a result that has no gradient. Sums that need one go through reduce_from: "
            "group.all_reduce passes none"
        )
    weighting = torch.linspace(1, 2, result.numel(), dtype=result.dtype).view(result.shape)
    total = (result * weighting).sum()
    found = called(lambda: torch.autograd.grad(total, list(leaves), allow_unused=True))
    return [torch.zeros_like(x) if dx is None else dx for x, dx in zip(leaves, found, strict=True)]


def on_ranks(program: Callable[[OnRanks, Group], dict[str, object]]) -> Answer:
    """The answer to an `OnRanks`: all that the program says on each rank, by name and rank."""

    def answer(case: OnRanks) -> dict[str, object]:
        try:
            ranks = in_threads(case.size, lambda group: program(case, group))
        except RuntimeError as error:
            if isinstance(error, NotImplementedError) or "All ranks must" not in str(error):
                raise
            told = str(error).partition(" (Processes")[0]
            raise AssertionError(told.rstrip(".")) from None
        ranks_of = [(what, r) for what in ranks[0] for r in range(case.size)]
        return {f"rank {r}, {what}": ranks[r][what] for what, r in ranks_of}

    return answer


def part_of(x: Tensor, group: Group) -> Tensor:
    """A rank's part of the last dimension, with memory of its own."""
    return x.chunk(group.size, dim=-1)[group.rank].clone()


def bytes_beyond(numbers: int, group: Group) -> int:
    """How many bytes were all-reduced beyond so many numbers of 8 bytes."""
    return max(0, sum(call.nbytes for call in group.calls) - 8 * numbers)
