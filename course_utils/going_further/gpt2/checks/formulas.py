"""What the check cells of GELU and of the folded head call (chapter 12)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from ....checks.common import verdict
from ....checks.elsewhere import beyond_the_card
from ....checks.inputs import ROUNDING, Call, random, tensors
from ....checks.judged import Answer, calling, gradients, judge
from .. import model

ROOT = (2 / torch.pi) ** 0.5


@st.composite
def _numbers(draw: st.DrawFn) -> Call:
    """The first number is 1: what is left of a large negative one is rounding beside it."""
    shape = [*draw(st.lists(st.integers(1, 2), max_size=2)), draw(st.integers(1, 4))]
    x = draw(tensors(shape))
    x[(0,) * x.dim()] = 1.0
    return Call("gelu_new", (x,))


def _inner(x: Tensor) -> Tensor:
    return ROOT * (x + 0.044715 * x**3)


def _with_tanh(inner: Callable[[Tensor], Tensor]) -> Answer:
    return lambda call: 0.5 * call.args[0] * (1 + torch.tanh(inner(call.args[0])))


def _of(function: Callable[[Tensor], Tensor]) -> Answer:
    return lambda call: function(call.args[0])


def _single(call: Call) -> Tensor:
    return model.gelu_new(call.args[0].float()).to(call.args[0].dtype)


def _by_exponentials(x: Tensor) -> Tensor:
    up, down = _inner(x).exp(), (-_inner(x)).exp()
    return 0.5 * x * (1 + (up - down) / (up + down))


CUBE = "x + 0.044715 x³: the third power, of x alone."
FACTOR = "The factor of the bracket is sqrt(2 / pi), about 0.798."
WRONG_GELUS = [
    (_of(F.gelu), "This is the exact GELU, with erf: off by less than 0.0005, and not GPT-2's."),
    (_of(torch.relu), "This is ReLU."),
    (_of(F.silu), "This is SiLU, x * sigmoid(x)."),
    (
        _of(lambda x: x * torch.sigmoid(1.702 * x)),
        "This is the approximation with a sigmoid, not with tanh.",
    ),
    (
        _of(lambda x: 2 * model.gelu_new(x)),
        "Everything is twice too large: the formula begins with 0.5.",
    ),
    (
        _of(lambda x: 0.5 * x * torch.tanh(_inner(x))),
        "1 is added to the tanh before it is multiplied.",
    ),
    (_of(lambda x: 0.5 * (1 + torch.tanh(_inner(x)))), "The formula is multiplied by x."),
    (
        _of(lambda x: 0.5 * x * (1 + _inner(x))),
        "The tanh is missing: it is taken of all that u is.",
    ),
    (_with_tanh(lambda x: ROOT * (x + 0.044715 * x)), CUBE),
    (_with_tanh(lambda x: ROOT * (x + 0.044715 * x**2)), CUBE),
    (_with_tanh(lambda x: ROOT * (x + 0.044715 * x * 3)), CUBE),
    (_with_tanh(lambda x: ROOT * (x + (0.044715 * x) ** 3)), CUBE),
    (_with_tanh(lambda x: ROOT * (x - 0.044715 * x**3)), "0.044715 x³ is added, not subtracted."),
    (
        _with_tanh(lambda x: ROOT * x + 0.044715 * x**3),
        "sqrt(2 / pi) multiplies both, x and 0.044715 x³.",
    ),
    (_with_tanh(lambda x: x + 0.044715 * x**3), FACTOR),
    (_with_tanh(lambda x: 2 / torch.pi * (x + 0.044715 * x**3)), FACTOR),
    (_with_tanh(lambda x: 2**0.5 / torch.pi * (x + 0.044715 * x**3)), FACTOR),
    (_with_tanh(lambda x: (2 * torch.pi) ** 0.5 * (x + 0.044715 * x**3)), FACTOR),
    (_with_tanh(lambda x: (torch.pi / 2) ** 0.5 * (x + 0.044715 * x**3)), FACTOR),
    (
        _with_tanh(lambda x: torch.tensor(2 / torch.pi).sqrt() * (x + 0.044715 * x**3)),
        "sqrt(2 / pi) is right to 7 digits only, as in float32, which torch.tensor takes for a "
        "number. Use math.sqrt.",
    ),
    (_of(_by_exponentials), "Powers of e overflow when x is large. torch.tanh does not."),
    (_single, "That is right to 7 digits only, as in float32. Keep the dtype of x."),
]


@verdict
def check_gelu_new(gelu_new: Callable[[Tensor], Tensor]) -> str:
    """Chapter 12, exercise 3. Returns a verdict; raises AssertionError on another function."""
    x = torch.linspace(-8, 8, 401, dtype=torch.float64).view(-1, 1)
    expected = calling(model.gelu_new)

    def as_precise(call: Call) -> Tensor:
        return expected(call.double())

    judge(
        calling(gelu_new),
        expected,
        _numbers(),
        WRONG_GELUS,
        first=[
            Call("gelu_new", (torch.tensor([-1.0, 0.0, 1.0, 2.0]).double(),)),
            Call("gelu_new", (x,)),
        ],
        exact=as_precise,
        number=80,
        advice="It is 0.5 x (1 + tanh u), u = sqrt(2 / pi) (x + 0.044715 x³): check each constant.",
    )
    error = (gelu_new(x) - model.gelu_new(x)).abs().max().item()
    if error > 1e-12:
        raise AssertionError(
            f"In float64 it is off by up to {error:.1e}. Check each constant: sqrt(2 / pi), "
            "0.044715, and the third power."
        )
    others = [Call("gelu_new", (x.to(dtype),)) for dtype in ROUNDING]
    others.append(Call("gelu_new", (torch.tensor(1.5),)))
    judge(
        calling(gelu_new),
        expected,
        st.sampled_from(others),
        exact=as_precise,
        first=others,
        number=1,
    )
    steep = st.builds(lambda seed: Call("gelu_new", (random(seed, 2, 3),)), st.integers(0, 9))
    judge(gradients(gelu_new), gradients(model.gelu_new), steep, number=3)
    return (
        "gelu_new is right: the formula with tanh, for any shape and size of number, and its "
        "gradient."
    )


@st.composite
def _heads(draw: st.DrawFn) -> Call:
    vocab_size, d_model, seed = (draw(st.integers(1, most)) for most in (4, 5, 9))
    dtype = draw(st.sampled_from((torch.float64, torch.float32)))
    shapes = (vocab_size, d_model), (vocab_size,), (d_model,), (d_model,)
    parts = [random(100 * seed + i, *shape, dtype=dtype) for i, shape in enumerate(shapes)]
    zero = draw(st.sampled_from((None, 1, 2, 3)))
    if zero is not None:
        parts[zero] = torch.zeros_like(parts[zero])
    return Call("fold_head", tuple(parts))


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(dim=1, keepdim=True)


def _column(x: Tensor, d_model: int) -> Tensor:
    return x[:, None] / d_model


def _head(head: Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]) -> Answer:
    return lambda call: head(*call.args, call.args[0].size(1))


OF_A_ROW = "The mean that is subtracted is that of a row: dim=1."
WRONG_HEADS = [
    (_head(lambda w, b, g, s, d: w * g), "The bias is not in it, nor is the shift."),
    (
        _head(lambda w, b, g, s, d: _centred(w * g)),
        "The rows are centred; the constant, weight @ shift + bias, is missing.",
    ),
    (
        _head(lambda w, b, g, s, d: w * g + _column(w @ s + b, d)),
        "Centre the rows first: 1 finds their means too.",
    ),
    (
        _head(lambda w, b, g, s, d: _centred(w * g) + _column(w @ s + b, 1)),
        "n + 1 sums to D, so each constant arrives D times too large.",
    ),
    (
        _head(lambda w, b, g, s, d: _centred(w * g) + _column(w @ s + b, len(w))),
        "The constant is divided by V. The numbers of n + 1 sum to D.",
    ),
    (
        _head(lambda w, b, g, s, d: _centred(w * g) - _column(w @ s + b, d)),
        "The constant is added, not subtracted.",
    ),
    (
        _head(lambda w, b, g, s, d: _centred(w * g) + _column(b, d)),
        "The shift is lost: weight @ shift belongs to it.",
    ),
    (_head(lambda w, b, g, s, d: _centred(w * g) + _column(w @ s, d)), "The bias is lost."),
    (
        _head(lambda w, b, g, s, d: _centred(w * g) + _column((w * g) @ s + b, d)),
        "The shift meets the weight as it was, not the scaled one: weight @ shift.",
    ),
    (_head(lambda w, b, g, s, d: w * g - (w * g).mean(0) + _column(w @ s + b, d)), OF_A_ROW),
    (_head(lambda w, b, g, s, d: w * g - (w * g).mean() + _column(w @ s + b, d)), OF_A_ROW),
    (
        _head(lambda w, b, g, s, d: _centred(w) + _column(w @ s + b, d)),
        "The gain is lost: each column of the weight is multiplied by its gain.",
    ),
    (
        _head(lambda w, b, g, s, d: _centred(w) * g + _column(w @ s + b, d)),
        "The rows are centred before the gain. Multiply by the gain first: it changes the means.",
    ),
    (
        _head(lambda w, b, g, s, d: model.fold_head(w, b, s, g)),
        "Gain and shift are exchanged.",
    ),
    (
        _head(
            lambda w, b, g, s, d: model.fold_head(*(x.float() for x in (w, b, g, s))).to(w.dtype)
        ),
        "That is right to 7 digits only, as in float32. Keep the dtype of the weight.",
    ),
]


@verdict
def check_fold_head(fold_head: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> str:
    """Chapter 12, exercise 5. Returns a verdict; raises AssertionError if the logits differ."""
    easy = [[2.0, -1.0, 3.0], [0.0, 4.0, 1.0]], [5.0, -2.0], [1.0, 2.0, 0.5], [3.0, 1.0, -1.0]
    many = tuple(random(i, *shape) for i, shape in enumerate(((300, 130), (300,), (130,), (130,))))
    expected = calling(model.fold_head)
    judge(
        calling(fold_head),
        expected,
        _heads(),
        WRONG_HEADS,
        first=[Call("fold_head", args) for args in (tuple(map(torch.tensor, easy)), many)],
        exact=lambda call: expected(call.double()),
        number=80,
        advice="The scaled weight, less each row's mean, plus each row's constant over D.",
    )

    def use(_: nn.Module, device: torch.device) -> Tensor:
        shapes = (4, 3), (4,), (3,), (3,)
        return fold_head(*(torch.empty(shape, device=device) for shape in shapes))

    more = beyond_the_card(use, "fold_head")
    anywhere = "" if more else ", on any device"
    return f"fold_head is right: the same logits without a bias, to rounding{anywhere}.{more}"
