"""What the checks of many processes share: programs on ranks, compared numbers (chapter 11)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ....checks.common import refuse_known
from ..groups import Group, in_threads


def on_all_ranks(size: int, program: Callable[[Group], object]) -> list:
    """What each rank's program returned; an error that ranks cause each other is a wrong answer."""
    try:
        return in_threads(size, program)
    except RuntimeError as error:
        if "All ranks must" not in str(error):
            raise
        raise AssertionError(str(error)) from None


def compare(found: object, expected: Tensor, what: str, hint: str, size: int = 0) -> None:
    """Raise AssertionError, with a hint, unless `found` is `expected`."""
    if not isinstance(found, Tensor):
        raise AssertionError(f"{what} {found!r}, expected a tensor. {hint}")
    if found.shape != expected.shape:
        raise AssertionError(
            f"{what} shape {tuple(found.shape)}, expected {tuple(expected.shape)}. {hint}"
        )
    if torch.allclose(found.to(expected.dtype), expected, rtol=0, atol=1e-9):
        return
    if size > 1:
        as_a_mean = f"{what} {size} times too small, as a mean over the ranks would be. {hint}"
        ones, times = torch.ones_like(expected), found / expected
        mistakes = [
            (size * ones, f"{what} {size} times too large, the number of ranks. {hint}"),
            (ones / size, as_a_mean),
        ]
        refuse_known(times, mistakes, atol=1e-6)
    at = (found - expected).abs().argmax()
    raise AssertionError(
        f"{what} {found.flatten()[at].item():.5g} where {expected.flatten()[at].item():.5g} was "
        f"expected. {hint}"
    )
