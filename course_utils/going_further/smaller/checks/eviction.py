"""What the check cell of eviction calls (chapter 09)."""

import math
from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ....checks.common import has_shape, verdict
from ....checks.elsewhere import beyond_the_card
from ....checks.inputs import LAYOUTS, Call
from ....checks.judged import Answer, calling, judge
from ..eviction import victim as right

RECEIVED, LEVELS = (0.0, 1.0, 0.5, 2.0), (0.0, 0.0, 50.0, 2e3, 1e7, 1e12)
ROWS = ((), (), (1,), (2,), (3, 1), (2, 2))
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


@st.composite
def _masses(draw: st.DrawFn) -> Call:
    """Attention received, often by several alike. In each row at least one position may go.

    All that may go have received at least so much as the level that is drawn.
    """
    shape = (*draw(st.sampled_from(ROWS)), draw(st.integers(1, 4)))
    rows, size = math.prod(shape[:-1]), shape[-1]
    mass = [[draw(st.sampled_from(RECEIVED)) for _ in range(size)] for _ in range(rows)]
    free = torch.tensor([[draw(st.booleans()) for _ in range(size)] for _ in range(rows)])
    for row in free:
        row[draw(st.integers(0, size - 1))] = True
    level, dtype = draw(st.sampled_from(LEVELS)), draw(st.sampled_from(DTYPES))
    mass = torch.tensor(mass, dtype=dtype) + level * free
    layout = draw(st.sampled_from(LAYOUTS))
    return Call("victim", (layout(mass.view(shape)), layout(~free.view(shape))))


def _choosing(victim: Callable) -> Answer:
    """What `victim` chooses; of several that have received least, it may take any."""
    call_it = calling(victim)

    def answer(call: Call) -> object:
        found, (mass, protected) = call_it(call), call.args
        least = right(mass, protected)
        if not has_shape(found, least.shape) or found.dtype != least.dtype:
            return found
        there = found.clamp(0, mass.size(-1) - 1)
        as_good = (mass.gather(-1, there) == mass.gather(-1, least)) & (there == found)
        return least.where(as_good & ~protected.gather(-1, there), found)

    return answer


def _filled(number: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda mass, protected: mass.masked_fill(protected, number).argmin(-1, keepdim=True)


def _among_the_free(mass: Tensor, protected: Tensor) -> Tensor:
    rows = zip(mass.reshape(-1, mass.size(-1)), protected.reshape(-1, mass.size(-1)), strict=True)
    found = [row[~shield].argmin() for row, shield in rows]
    return torch.stack(found).view(*mass.shape[:-1], 1)


INFINITE = "A protected position can still have the least: give it an infinite mass, math.inf."
WRONG = [
    (
        lambda mass, protected: mass.argmin(-1, keepdim=True),
        "This one has received least of all, but it is protected.",
    ),
    (
        lambda mass, protected: mass.masked_fill(protected, -1).argmax(-1, keepdim=True),
        "This one has received most attention. The one with least has to go.",
    ),
    (
        lambda mass, protected: mass.argmax(-1, keepdim=True),
        "This one has received most attention. The one with least has to go.",
    ),
    (lambda mass, protected: right(mass, ~protected), "This is the least of the *protected* ones."),
    (
        lambda mass, protected: right(mass, protected)[..., 0],
        "The last dimension stays, with size 1: keepdim=True.",
    ),
    (
        _among_the_free,
        "The index counts only the positions that may go. Count all of them.",
    ),
    (
        lambda mass, protected: (~protected).long().argmax(-1, keepdim=True),
        "This is the first position that may go, not the one with the least mass.",
    ),
    *((_filled(number), INFINITE) for number in (0.0, 1.0, 1e2, 1e3, 1e4, 1e6, 1e9)),
    (lambda mass, protected: _filled(mass.max().item())(mass, protected), INFINITE),
    (lambda mass, protected: _filled(mass.max().item() + 1)(mass, protected), INFINITE),
]


@verdict
def check_victim(victim: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Chapter 09, exercise 5. Returns a verdict; raises AssertionError on a wrong choice."""
    mass = torch.tensor([[0.5, 0.1, 3.0, 0.2, 0.05], [2.0, 0.9, 0.3, 0.1, 0.2]])
    protected = torch.tensor([[False, False, False, True, True]] * 2)
    judge(
        _choosing(victim),
        _choosing(right),
        _masses(),
        [(_choosing(wrong), advice) for wrong, advice in WRONG],
        first=[Call("victim", (mass, protected))],
        number=120,
        advice="It is, row by row, the index among all positions of the least mass that is not "
        "protected.",
    )

    def use(_: nn.Module, device: torch.device) -> Tensor:
        mass = torch.empty(2, 3, 4, device=device)
        return victim(mass, torch.ones(2, 3, 4, dtype=torch.bool, device=device))

    more = beyond_the_card(use, "victim")
    return f"victim is right: in each head, the least of those that may go, large or small.{more}"
