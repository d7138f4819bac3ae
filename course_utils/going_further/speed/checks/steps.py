"""What the check cell of eight bits calls (chapter 07)."""

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ....checks.common import verdict
from ....checks.inputs import Call, random, tensors
from ....checks.judged import Answer, calling, judge
from .. import roofline as right

HALF = 0.5001  # of a step; a float32 quotient may be rounded the other way


class NaNAsInt8(TorchDispatchMode):
    """What NaN becomes as int8 depends on the processor: while active it is -128, never 0."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype == torch.int8:
            for x in (x for x in args if isinstance(x, Tensor) and x.is_floating_point()):
                result.masked_fill_(x.isnan(), -128)
        return result


def _rounding(quantize: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Answer:
    """The answer to a `Call`: values and scale, and those of the course for any that are right."""

    def answer(call: Call) -> dict[str, Tensor]:
        with NaNAsInt8():
            found = calling(quantize)(call)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise AssertionError(
                f"gives {'None' if found is None else f'a {type(found).__name__}'}; quantize "
                "returns two tensors: the values, and the scale"
            )
        expected = right.quantize(*call.args)
        found = expected if _is_right(*found, *call.args) else found
        return dict(zip(("the values", "the scale"), found, strict=True))

    return answer


def _is_right(values: object, scale: object, weight: Tensor) -> bool:
    """Whether they are the weight to half a step, and use the whole range."""
    rows = (weight.size(0), 1)
    if not isinstance(values, Tensor) or not isinstance(scale, Tensor) or scale.shape != rows:
        return False
    if values.dtype != torch.int8 or values.shape != weight.shape or not scale.is_floating_point():
        return False
    weight, scale = weight.double(), scale.double()
    largest = weight.abs().amax(dim=1, keepdim=True)
    is_zero = largest == 0
    step = (largest / 127).masked_fill(is_zero, 1.0)
    error = (values.double() * scale - weight).abs() / step
    used = values.double().abs().amax(dim=1, keepdim=True)
    return bool(scale.isfinite().all() and (error <= HALF).all() and (used == 127 * ~is_zero).all())


def _scaled(weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    return (weight / scale.where(scale > 0, 1)).round().to(torch.int8), scale


def _largest(weight: Tensor) -> Tensor:
    return weight.abs().amax(dim=1, keepdim=True)


def _cut(weight: Tensor, cut: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    scale = _largest(weight) / 127
    return cut(weight / scale.where(scale > 0, 1)).to(torch.int8), scale


def _divided(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = _largest(weight) / 127
    return (weight / scale).round().to(torch.int8), scale


def _of_columns(weight: Tensor) -> tuple[Tensor, Tensor]:
    return _scaled(weight, weight.abs().amax(dim=0, keepdim=True) / 127)


def _two_ended(weight: Tensor) -> tuple[Tensor, Tensor]:
    low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    return _scaled(weight, (high - low) / 255)


WRONG_STEPS = [
    (
        _divided,
        "A row of zeros must come back as zeros: mind the division by 0, which gives NaN. What NaN "
        "becomes as int8 depends on the processor.",
    ),
    (lambda w: _cut(w, torch.trunc), "The numbers are cut off; round them to the nearest."),
    (lambda w: _cut(w, torch.floor), "The numbers are rounded down; round them to the nearest."),
    (lambda w: _cut(w, torch.ceil), "The numbers are rounded up; round them to the nearest."),
    (
        lambda w: _scaled(w, (w.abs().max() / 127).expand(len(w), 1)),
        "All rows have one scale. Each row has its own, from its own largest number.",
    ),
    (lambda w: _scaled(w, w.abs().max() / 127), "All have one scale. Each row has its own."),
    (_of_columns, "Each column has a scale; each row should: the largest over dim=1."),
    (
        lambda w: _scaled(w, w.amax(dim=1, keepdim=True) / 127),
        "The largest number of a row may be a negative one: take abs() first.",
    ),
    (
        lambda w: (_scaled(w, _largest(w) / 127)[0], 127 / _largest(w)),
        "The scale is upside down: value times scale is the weight.",
    ),
    (
        lambda w: (_scaled(w, _largest(w) / 127)[0], _largest(w)),
        "The scale is 127 times too large: value times scale is the weight.",
    ),
    (
        lambda w: (_scaled(w, _largest(w) / 127)[0], (_largest(w) / 127)[:, 0]),
        "The scale keeps its dimension (keepdim=True), so that values * scale goes row by row.",
    ),
    (
        lambda w: _scaled(w, _largest(w) / 128),
        "The largest number is divided by 128, and int8 ends at 127.",
    ),
    (
        _two_ended,
        "The range from the smallest to the largest is cut into 255 steps; it is not "
        "symmetric then. The scale is the largest in size divided by 127.",
    ),
    (
        lambda w: (_scaled(w, _largest(w) / 127)[0].to(w.dtype), _largest(w) / 127),
        "The values are whole numbers, but not stored in 8 bits: `.to(torch.int8)`.",
    ),
]


@st.composite
def _weights(draw: st.DrawFn) -> Call:
    shape = [draw(st.integers(1, 3)), draw(st.integers(1, 5))]
    scales = (1.0, 1.0, 0.0, 1e-6, 30.0, 1e3)
    dtypes = (torch.float32, torch.float64)
    return Call("quantize", (draw(tensors(shape, dtypes, scales)),))


@verdict
def check_quantize(quantize: Callable[[Tensor], tuple[Tensor, Tensor]]) -> str:
    """Chapter 07, exercise 3. Returns a verdict; raises AssertionError on wrong numbers."""
    easy = torch.tensor([[127.0, 3.4, -50.6], [-2.54, 0.0, 1.0], [0.0, 0.0, 0.0]])
    wide = random(0, 4, 300) * torch.tensor([[1.0], [100.0], [1e-6], [-1e3]]).double()
    wide[:, -1] = 10 * wide[:, 0]
    judge(
        _rounding(quantize),
        _rounding(right.quantize),
        _weights(),
        [(_rounding(wrong), advice) for wrong, advice in WRONG_STEPS],
        first=[Call("quantize", (x,)) for x in (easy[:2], easy, wide, wide.float())],
        number=100,
        advice="Values times scale has to be the weight, to half a step, and the largest of each "
        "row 127 or -127, however small or large the row is.",
    )
    return "quantize is right: every number comes back to within half a step."
