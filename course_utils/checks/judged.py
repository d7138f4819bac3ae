"""How an answer is judged: on many drawn inputs beside the course's own, the smallest one shown."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..evaluation.drawn import smallest
from .common import is_stub, raised
from .inputs import MOST_SHOWN, ROUNDING, Call, written

Case = TypeVar("Case")
Answer = Callable[[Case], object]
Mistakes = Iterable[tuple[Answer, str]]

TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-5,
    torch.float16: 2**-10,
    torch.bfloat16: 2**-7,
}
MARGIN = 8
SMALL = 0.1  # of the largest number of a dict
COMPARED = 12
DETACHED = (
    "Training needs this gradient: is something detached on the way (`detach`, `.data`, `item`, "
    "`no_grad`), or changed in place?"
)


def judge(
    answer: Answer,
    right: Answer,
    cases: st.SearchStrategy[Case],
    mistakes: Mistakes = (),
    first: Sequence[Case] = (),
    exact: Answer | None = None,
    number: int = 60,
    advice: str = "",
) -> None:
    """Raise AssertionError, with the smallest case, unless the answer is right in all cases.

    `answer` and `right` are given a case, whose `str` is what the message begins with. `first` are
    the cases that come before the drawn ones. A mistake is another answer, and advice for who gave
    it: it is named if it gives the same in the smallest case, in the first ones and in others.
    `exact` gives what `right` gives without its rounding: several times as much is allowed.
    `advice` ends a message in which no mistake is named.
    """

    given: list[tuple[Case, list[Tensor], list[Tensor]]] = []

    def wrong(case: Case) -> str:
        try:
            found = answer(case)
        except AssertionError as error:
            return str(error)
        tensors = _tensors_in(found)
        given.append((case, tensors, [x.detach().clone() for x in tensors]))
        expected = right(case)
        return difference(found, expected, expected if exact is None else exact(case))

    case = next((case for case in first if wrong(case)), None)
    if case is None:
        case = smallest(cases, lambda case: bool(wrong(case)), number, seed=0)
    if case is not None:
        complaint = wrong(case) or "is right now, but was wrong before: it is not the same twice"
        others = [*first, *drawn(cases, COMPARED)]
        last = named(answer, mistakes, [case, *others]) or advice
        raise AssertionError(f"{case} {complaint.rstrip('.')}. {last}".strip())
    for case, tensors, before in given:
        if not all(map(torch.equal, tensors, before)) and not all(map(_equal, tensors, before)):
            raise AssertionError(
                f"{case} gives a result that a later call changes: its numbers are in memory that "
                "is used again. Make a new tensor in each call."
            )


def _tensors_in(found: object) -> list[Tensor]:
    """All tensors of a result, in whatever lists, tuples and dicts."""
    if isinstance(found, Tensor):
        return [found]
    parts = found.values() if isinstance(found, dict) else found
    many = isinstance(found, dict | list | tuple)
    return [x for part in parts for x in _tensors_in(part)] if many else []


def drawn(cases: st.SearchStrategy[Case], number: int) -> list[Case]:
    """So many drawn cases, or fewer if there are no more."""
    found: list[Case] = []
    smallest(cases, lambda case: bool(found.append(case)), number, seed=1)
    return found


def named(answer: Answer, mistakes: Mistakes, cases: Sequence[Case]) -> str:
    """The advice for the first mistake that gives what the answer gives in all the cases."""
    found = [_or_error(answer, case) for case in cases]
    if all(isinstance(one, Exception) for one in found):
        return ""
    for wrong, advice in mistakes:
        if all(_alike(mine, _or_error(wrong, c)) for mine, c in zip(found, cases, strict=True)):
            return advice
    return ""


def _or_error(answer: Answer, case: Case) -> object:
    try:
        return answer(case)
    except Exception as error:
        return error


def _alike(found: object, wrong: object) -> bool:
    if isinstance(found, Exception) or isinstance(wrong, Exception):
        return isinstance(found, Exception) and isinstance(wrong, Exception)
    return not difference(found, wrong, wrong)


def calling(function: Callable) -> Answer:
    """The answer to a `Call`: what the function returns, and that it changes nothing it is given.

    An error that it raises becomes a sentence.
    """

    def answer(call: Call) -> object:
        own = call.copied()
        found = _result(function, own)
        for mine, theirs in zip(own.args, call.args, strict=True):
            if not _as_it_was(mine, theirs):
                kind = "tensor" if isinstance(mine, Tensor) else type(mine).__name__
                raise AssertionError(f"changes a {kind} that came in; work on a new one")
        return found

    return answer


def _as_it_was(mine: object, theirs: object) -> bool:
    """Whether tensors, and those in lists and dicts, have the numbers that they came with."""
    if isinstance(mine, Tensor):
        return _equal(mine, theirs)
    if isinstance(mine, dict):
        return mine.keys() == theirs.keys() and all(_as_it_was(mine[k], theirs[k]) for k in mine)
    if isinstance(mine, list | tuple):
        return len(mine) == len(theirs) and all(map(_as_it_was, mine, theirs))
    return not isinstance(mine, int | str) or mine == theirs


def gradients(function: Callable) -> Answer:
    """The answer to a `Call`: the gradient of each tensor that came in, from a fixed weighting."""

    def answer(call: Call) -> object:
        own = call.with_gradients()
        found = _result(function, own)
        leaves = [x for x in own.args if isinstance(x, Tensor) and x.requires_grad]
        if not isinstance(found, Tensor) or not found.requires_grad:
            raise AssertionError(
                "gives a result that has no gradient, so nothing before it would learn"
            )
        weighting = torch.linspace(-1, 2, found.numel(), dtype=found.dtype).view(found.shape)
        found = backwards((found * weighting).sum(), leaves)
        return {
            f"the gradient of argument {number}": torch.zeros_like(leaf) if x is None else x
            for number, (leaf, x) in enumerate(zip(leaves, found, strict=True), 1)
        }

    return answer


def backwards(total: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients of the leaves, None where it does not depend on one; an error is a sentence."""
    try:
        return torch.autograd.grad(total, list(leaves), allow_unused=True)
    except RuntimeError as error:
        raise AssertionError(
            "is right, but training fails on the way back: a tensor that is still needed for the "
            "gradient was changed in place"
            if "inplace operation" in str(error)
            else raised(error)
        ) from error


def _result(function: Callable, call: Call) -> object:
    try:
        return function(*call.args, **call.options)
    except Exception as error:
        if is_stub(error):
            raise
        raise AssertionError(raised(error)) from error


def difference(found: object, expected: object, exact: object, floor: float = 0.0) -> str:
    """How an answer differs from the expected one, as the end of a sentence, or nothing.

    Tensors may differ by a rounding, or by several times what `exact` differs from `expected`.
    Of a dict each value is compared, and of a tuple each part. What cancels out in a
    gradient is 0 up to a rounding of the others: numbers of a dict may differ by that, too, and
    those of a tensor by a rounding of `floor`.
    """
    if isinstance(expected, Tensor):
        return _tensors(found, expected, exact, floor)
    if isinstance(expected, dict):
        if not isinstance(found, dict) or found.keys() != expected.keys():
            return f"is {found!r}, expected {expected!r}"
        floor = SMALL * max(map(_size, exact.values()), default=0.0)
        parts = ((name, found[name], expected[name], exact[name]) for name in expected)
    elif isinstance(expected, tuple):
        if not isinstance(found, tuple) or len(found) != len(expected):
            return f"gives {_kind(found)}, expected {len(expected)} things"
        names = (f"result {number}" for number in range(1, len(expected) + 1))
        parts = zip(names, found, expected, exact, strict=True)
    elif isinstance(expected, float) and isinstance(found, int | float):
        same = math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12)
        return "" if same else f"is {found:.6g}, expected {expected:.6g}"
    else:
        return "" if found == expected else f"is {found!r}, expected {expected!r}"
    hows = ((name, difference(mine, theirs, right, floor)) for name, mine, theirs, right in parts)
    return next((f"{how} ({name})" for name, how in hows if how), "")


def _size(x: object) -> float:
    """The largest of its finite numbers."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or not x.numel():
        return 0.0
    return x.detach().abs().where(x.isfinite(), 0).max().item()


def _tensors(found: object, expected: Tensor, exact: Tensor, floor: float) -> str:
    if found is None:
        return "is None: the function returns nothing"
    if not isinstance(found, Tensor):
        return f"is {_kind(found)}, expected a torch.Tensor"
    if found.shape != expected.shape:
        return f"has shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    if found.dtype != expected.dtype:
        return f"has dtype {found.dtype}, expected {expected.dtype}"
    if _close(found.detach(), expected.detach(), exact.detach(), floor):
        return ""
    if found.is_floating_point() and found.isnan().any() and not expected.isnan().any():
        return f"holds NaN (not a number), expected {_numbers(expected)}"
    far = (found.double() - expected.double()).abs().nan_to_num(math.inf)
    far = far.masked_fill(found == expected, 0.0)  # two infinities, too
    if found.numel() <= MOST_SHOWN:
        mine, theirs, where = written(found), written(expected), ""
    else:
        at = tuple(int(i) for i in torch.unravel_index(far.argmax(), far.shape))
        mine, theirs, where = written(found[at]), written(expected[at]), f" at {list(at)}"
    off = f" (off by {far.max().item():.1g})" if mine == theirs else ""
    return f"is {mine}{where}, expected {theirs}{off}"


def _close(found: Tensor, expected: Tensor, exact: Tensor, floor: float) -> bool:
    """Whether it is right to rounding; infinities and whole numbers have to be the same."""
    if not found.is_floating_point():
        return torch.equal(found, expected)
    finite = expected.isfinite()
    if not _equal(found.where(~finite, 0), expected.where(~finite, 0)):
        return False
    mine, theirs, true = (x.double().where(finite, 0) for x in (found, expected, exact))
    if not true.numel():
        return True
    # A 16-bit number is right to the last of its digits, a longer one beside the largest of all.
    scale = true.abs() if expected.dtype in ROUNDING else true.abs().amax()
    lost = (theirs - true).abs().amax()
    allowed = TOLERANCE[expected.dtype] * (scale + floor) + MARGIN * lost
    return bool(((mine - true).abs() <= allowed).all())


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def _numbers(x: Tensor) -> str:
    return written(x) if x.numel() <= MOST_SHOWN else "finite numbers"


def _kind(x: object) -> str:
    return f"a {type(x).__name__}" if x is not None else "None"
