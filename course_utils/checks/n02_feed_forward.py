"""What the check cell of the feed-forward part calls (notebook 02)."""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from ..transformer import FeedForward
from .again import LONG, right_again
from .common import verdict
from .inputs import random, tensors
from .judged import DETACHED, Answer, judge
from .modules import Use, learning, made, using
from .n02_dropout import rests


@st.composite
def _uses(draw: st.DrawFn) -> Use:
    batch, seq_len, d_model, d_ff = (draw(st.integers(1, n)) for n in (3, 4, 4, 6))
    x = draw(tensors((batch, seq_len, d_model), (torch.float64, torch.float32)))
    sizes = {"d_model": d_model, "d_ff": d_ff}
    training, seed = draw(st.booleans()), draw(st.integers(0, 9))
    return Use("FeedForward", sizes, (x,), seed, training, x.dtype)


def _feed_forward(forward: Callable[[nn.Module, Tensor], Tensor]) -> Answer:
    wrong = type("Wrong", (FeedForward,), {"forward": forward})
    return using(wrong, FeedForward)


ORDER = "fc1, then torch.relu, then fc2"
WRONG_PARTS = [
    (lambda m, x: m.fc2(m.fc1(x)), f"The ReLU is missing: {ORDER}."),
    (
        lambda m, x: m.fc2(m.fc1(x)).relu(),
        f"The ReLU comes last, where nothing may be cut: {ORDER}.",
    ),
    (lambda m, x: m.fc2(m.fc1(x).relu()).relu(), f"There is a second ReLU, after fc2: {ORDER}."),
    (lambda m, x: m.fc2(m.fc1(x.relu())), f"The ReLU comes first: {ORDER}."),
    (lambda m, x: m.fc2(m.fc1(x.relu()).relu()), f"There is a ReLU before fc1, too: {ORDER}."),
    (lambda m, x: m.fc2(F.gelu(m.fc1(x))), f"That is a GELU; here it is a ReLU: {ORDER}."),
    (
        lambda m, x: m.fc2(F.gelu(m.fc1(x), approximate="tanh")),
        f"That is a GELU; here it is a ReLU: {ORDER}.",
    ),
    (lambda m, x: m.fc2(F.silu(m.fc1(x))), f"That is a SiLU; here it is a ReLU: {ORDER}."),
    (lambda m, x: m.fc2(m.fc1(x).tanh()), f"That is a tanh; here it is a ReLU: {ORDER}."),
    (lambda m, x: m.fc2(m.fc1(x).sigmoid()), f"That is a sigmoid; here it is a ReLU: {ORDER}."),
    (lambda m, x: m.fc2(F.leaky_relu(m.fc1(x))), f"That is a leaky ReLU, not a ReLU: {ORDER}."),
    (lambda m, x: m.fc2(m.fc1(x).abs()), "What is negative becomes 0; abs turns its sign round."),
    (
        lambda m, x: x + m.fc2(m.fc1(x).relu()),
        "x is added. That is done by the layer, in exercise 3, and not in here.",
    ),
]


@verdict
def check_feed_forward(feed_forward_class: type[nn.Module]) -> str:
    """Notebook 02, exercise 2. Returns a verdict; raises AssertionError on a wrong module."""
    right = FeedForward
    use = Use("FeedForward", {"d_model": 3, "d_ff": 5}, (), training=True)
    rests(
        made(feed_forward_class, right, use),
        random(0, 2, 4, 3),
        "FeedForward gives something else each time. Nothing is random in it; dropout comes in "
        "exercise 3.",
    )
    judge(
        using(feed_forward_class, right),
        using(right, right),
        _uses(),
        [(_feed_forward(wrong), advice) for wrong, advice in WRONG_PARTS],
        number=60,
        advice=f"It should be {ORDER}.",
    )
    judge(
        learning(feed_forward_class, right),
        learning(right, right),
        _uses(),
        number=5,
        advice=DETACHED,
    )
    sizes = ((2, 4), (2, 4), (1, 1), (5, 3), (1, LONG))
    inputs = [random(seed, *size, 3) for seed, size in enumerate(sizes)]
    right_again(feed_forward_class, right, replace(use, training=False), inputs)
    return "FeedForward is right, and so are its gradients."
