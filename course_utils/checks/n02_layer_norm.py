"""What the check cell of layer norm calls (notebook 02)."""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from .common import verdict
from .inputs import Call, random, tensors
from .judged import DETACHED, Answer, calling, gradients, judge

EPS = 1e-5
Part = Callable[[Tensor], Tensor]


@st.composite
def _tokens(draw: st.DrawFn) -> Call:
    """Tokens of all scales and levels; eps by position, by name, or left out."""
    shape = draw(st.lists(st.integers(1, 3), max_size=2)) + [draw(st.integers(2, 5))]
    dtype = draw(st.sampled_from((torch.float32, torch.float64)))
    x = draw(tensors(shape, (dtype,)))
    seed, ones = draw(st.integers(0, 9)), torch.ones(shape[-1], dtype=dtype)
    weight, bias = (random(n, shape[-1], dtype=dtype) for n in (seed, seed + 10))
    weight, bias = draw(st.sampled_from(((ones, 0 * ones), (weight, bias))))
    eps = draw(st.sampled_from((None, None, 0.5, 1e-3)))
    if eps is None:
        return Call("layer_norm", (x, weight, bias))
    if draw(st.booleans()):
        return Call("layer_norm", (x, weight, bias, eps))
    return Call("layer_norm", (x, weight, bias), {"eps": eps})


def _token(*rows: list[float], eps: float | None = None, plain: bool = True) -> Call:
    x = torch.tensor(rows)
    weight, bias = torch.ones(x.size(-1)), torch.zeros(x.size(-1))
    if not plain:
        weight, bias = weight.cumsum(0), weight.cumsum(0) - 2
    return Call("layer_norm", (x, weight, bias, *(() if eps is None else (eps,))))


FIRST = [
    _token([1.0, 2.0, 6.0], [0.0, -4.0, 1.0], [3.0, 5.0, 10.0]),
    _token([1.0, 2.0, 6.0], [0.0, -4.0, 1.0], plain=False),
    _token([0.0, 0.0]),
    _token([0.001, 0.003]),
    _token([1.0, 2.0], eps=0.5),
    _token([3000.0, 3001.0]),
]


def _plainly(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Call:
    """Normal numbers of that shape, with a weight and a bias."""
    shapes = shape, shape[-1:], shape[-1:]
    return Call("layer_norm", tuple(random(seed, *one, dtype=dtype) for one in shapes))


LARGE = [
    _plainly(shape, 0, dtype)
    for shape in ((2, 3, 2, 4), (2, 1100))
    for dtype in (torch.float64, torch.float32)
]


def _last(function: Callable[..., Tensor], **options: bool) -> Part:
    return lambda x: function(x, -1, keepdim=True, **options)


_mean, _variance = _last(torch.mean), _last(torch.var, unbiased=False)
_unbiased = _last(torch.var, unbiased=True)


def _of_squares(x: Tensor) -> Tensor:
    return _mean(x * x) - _mean(x) ** 2


def _normed(
    average: Part = _mean,
    variance: Part = _variance,
    divisor: Callable[[Tensor, float], Tensor] = lambda variance, eps: (variance + eps).sqrt(),
    use_weight: bool = True,
    use_bias: bool = True,
    eps: float | None = None,
    default: float = EPS,
) -> Answer:
    """A layer norm with other parts; `eps` overrides the one that is handed in."""

    def layer_norm(call: Call) -> Tensor:
        x, weight, bias, *given = call.args
        given = given[0] if given else call.options.get("eps", default)
        found = (x - average(x)) / divisor(variance(x), given if eps is None else eps)
        found = found * weight if use_weight else found
        return found + bias if use_bias else found

    return layer_norm


def _rounded(call: Call) -> Tensor:
    """The right one, its average off by a rounding: as far as another right one may be off."""

    def off(x: Tensor) -> Tensor:
        return _mean(x) + torch.finfo(x.dtype).eps / 2 * x.abs().amax(-1, keepdim=True)

    return _normed(off)(call)


def _along(*dim: int, keepdim: bool | None = None, average: Part | None = None) -> Answer:
    """A layer norm whose average and variance, or variance only, are those along `dim`, or all."""
    options = {} if keepdim is None else {"keepdim": keepdim}
    return _normed(
        average or (lambda x: x.mean(*dim, **options)),
        lambda x: x.var(*dim, unbiased=False, **options),
    )


def _in_float32(call: Call) -> Call:
    return replace(call, args=tuple(x.float() if isinstance(x, Tensor) else x for x in call.args))


def _other_end(change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Answer:
    """A layer norm that ends otherwise: with normed numbers, weight and bias."""

    def layer_norm(call: Call) -> Tensor:
        x, weight, bias, *_ = call.args
        return change(_normed(use_weight=False, use_bias=False)(call), weight, bias)

    return layer_norm


def _bare(variance: Tensor, _: float) -> Tensor:
    return variance.sqrt()


def _outside(variance: Tensor, eps: float) -> Tensor:
    return variance.sqrt() + eps


ROOT = "Divide by the square root of the variance."
BY_ONE_LESS = "The variance is divided by d - 1; here it is divided by d (unbiased=False)."
OUTSIDE = "eps goes under the root, beside the variance."
NO_EPS = "Equal numbers have a variance of 0: add eps to it."
ONE_TOKEN = "Average and variance are those of each token: dim=-1, with keepdim=True."
WRONG_NORMS = [
    (_normed(variance=_unbiased), BY_ONE_LESS),
    (_normed(variance=_unbiased, divisor=_outside), f"{BY_ONE_LESS} {OUTSIDE}"),
    (_normed(variance=_unbiased, divisor=_bare), f"{BY_ONE_LESS} {NO_EPS}"),
    *(
        (_normed(variance=variance, divisor=lambda variance, eps: variance + eps), ROOT)
        for variance in (_variance, _unbiased)
    ),
    (_normed(use_weight=False, use_bias=False), "weight and bias are not used."),
    (_normed(use_bias=False), "The bias is not added."),
    (_normed(use_weight=False), "The weight is not used: multiply by it, then add the bias."),
    (_normed(average=torch.zeros_like), "The average is not subtracted."),
    (
        _normed(torch.zeros_like, lambda x: _mean(x * x)),
        "The average is not subtracted: this divides by the root of the average square.",
    ),
    (_along(), ONE_TOKEN),
    (_along(average=_mean), ONE_TOKEN),
    *((_along(dim, keepdim=True), ONE_TOKEN) for dim in (0, -2)),
    (_along(-1), "Average and variance need keepdim=True, or they are paired with columns."),
    (_normed(divisor=lambda variance, eps: 1 / (variance + eps).sqrt()), "Divide by the root."),
    (
        _normed(_mean, lambda x: _variance(x) * x.size(-1)),
        "The variance is the average of the squares: their sum, divided by d.",
    ),
    (_other_end(lambda normed, w, b: (normed + b) * w), "The weight comes first, then the bias."),
    (_other_end(lambda normed, w, b: normed * b + w), "weight and bias are exchanged."),
    (
        lambda call: _normed()(_in_float32(call)).to(call.args[0].dtype),
        "That is right to 7 digits only, as in float32. Leave the dtype as it is.",
    ),
    (_normed(divisor=_outside), OUTSIDE),
    (_normed(divisor=_bare), NO_EPS),
    (_normed(divisor=lambda variance, _: variance.sqrt() + EPS), f"{OUTSIDE} Use that handed in."),
    (_normed(eps=EPS), "Use the eps that was handed in."),
    *(
        (_normed(default=eps), "Where no eps is handed in, it is 1e-5.")
        for eps in (1e-3, 1e-4, 1e-6, 1e-8, 1e-12)
    ),
    *(
        (_normed(eps=eps), "Use the eps that was handed in, 1e-5 if there is none.")
        for eps in (1e-3, 1e-4, 1e-6, 1e-8, 1e-12)
    ),
    *(
        (
            _normed(variance=variance),
            "The variance as average square minus squared average loses all its digits far from "
            "0. Average the squares of x - average.",
        )
        for variance in (_of_squares, lambda x: _of_squares(x).clamp(min=0))
    ),
]


@verdict
def check_layer_norm(layer_norm: Callable[..., Tensor]) -> str:
    """Notebook 02, exercise 1. Returns a verdict; raises AssertionError on a wrong layer norm."""
    judge(
        calling(layer_norm),
        _rounded,
        _tokens(),
        WRONG_NORMS,
        first=FIRST,
        exact=lambda call: _normed()(call.double()),
        number=100,
    )
    steep = st.builds(
        lambda seed, dtype: _plainly((2, 4), seed, dtype),
        st.integers(0, 99),
        st.sampled_from((torch.float64, torch.float32)),
    )

    def right(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weight, bias, EPS)

    judge(
        gradients(layer_norm),
        gradients(right),
        steep,
        exact=lambda call: gradients(right)(call.double()),
        number=10,
        advice=DETACHED,
    )
    judge(
        calling(layer_norm),
        _rounded,
        st.sampled_from(LARGE),
        first=LARGE,
        exact=lambda call: _normed()(call.double()),
        number=1,
    )
    return (
        "layer_norm is right: one token and many, small numbers, numbers far from 0, numbers that "
        "are all equal, any eps, and its gradient."
    )
