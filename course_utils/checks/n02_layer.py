"""What the check cell of the decoder layer calls (notebook 02)."""

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ..transformer import DecoderLayer
from .again import LONG, right_again
from .common import verdict
from .elsewhere import follows_its_device
from .inputs import random
from .judged import DETACHED, Answer, judge
from .modules import Use, learning, made, using
from .n02_dropout import DEFAULT, NEVER_RESTS, layer_drops, rests

DROPOUTS = ({}, {"dropout": 0.0}, {"dropout": 0.5})


@st.composite
def _uses(draw: st.DrawFn) -> Use:
    batch, seq_len, d_ff, num_heads = (draw(st.integers(1, n)) for n in (3, 4, 5, 3))
    d_model = num_heads * draw(st.integers(3, 4))
    sizes = {"d_model": d_model, "d_ff": d_ff, "num_heads": num_heads}
    if draw(st.booleans()) and num_heads == 1:
        del sizes["num_heads"]
    seed, dtype = draw(st.integers(0, 9)), draw(st.sampled_from((torch.float64, torch.float32)))
    x = random(seed, batch, seq_len, d_model, dtype=dtype)
    return Use("DecoderLayer", sizes | draw(st.sampled_from(DROPOUTS)), (x,), seed, dtype=dtype)


def _layer(forward: Callable[[nn.Module, Tensor], Tensor]) -> Answer:
    wrong = type("Wrong", (DecoderLayer,), {"forward": forward})
    return using(wrong, DecoderLayer)


class _OneHead(DecoderLayer):
    def __init__(self, d_model: int, d_ff: int, num_heads: int = 1, dropout: float = 0.1):
        super().__init__(d_model, d_ff, 1, dropout)


def _attended(m: DecoderLayer, x: Tensor) -> Tensor:
    return x + m.attention(m.norm1(x))


def _fed(m: DecoderLayer, x: Tensor) -> Tensor:
    return x + m.feed_forward(m.norm2(x))


def _post_norm(m: DecoderLayer, x: Tensor) -> Tensor:
    x = m.norm1(x + m.attention(x))
    return m.norm2(x + m.feed_forward(x))


def _normed(m: DecoderLayer, x: Tensor) -> Tensor:
    x = m.norm1(x)
    x = m.norm2(x + m.attention(x))
    return x + m.feed_forward(x)


def _normed_once(m: DecoderLayer, x: Tensor) -> Tensor:
    x = m.norm1(x)
    return _fed(m, x + m.attention(x))


def _normed_second(m: DecoderLayer, x: Tensor) -> Tensor:
    x = m.norm2(_attended(m, x))
    return x + m.feed_forward(x)


def _exchanged(m: DecoderLayer, x: Tensor) -> Tensor:
    x = x + m.attention(m.norm2(x))
    return x + m.feed_forward(m.norm1(x))


def _one_norm(m: DecoderLayer, x: Tensor) -> Tensor:
    x = _attended(m, x)
    return x + m.feed_forward(m.norm1(x))


def _one_norm_2(m: DecoderLayer, x: Tensor) -> Tensor:
    return _fed(m, x + m.attention(m.norm2(x)))


def _no_norms(m: DecoderLayer, x: Tensor) -> Tensor:
    x = x + m.attention(x)
    return x + m.feed_forward(x)


def _no_norm2(m: DecoderLayer, x: Tensor) -> Tensor:
    x = _attended(m, x)
    return x + m.feed_forward(x)


STREAM_NORMED = "The stream itself is normed. A norm makes a copy for its part to read; add to x."
WRONG_LAYERS = [
    (_one_norm, "norm1 is used twice: the feed-forward part has its own, norm2."),
    (_one_norm_2, "norm2 is used twice: attention has its own, norm1."),
    (
        _post_norm,
        "The norms come after the additions (post-norm). Here each part gets a normed copy of the "
        "stream, and the stream itself is never normed (pre-norm).",
    ),
    (
        lambda m, x: m.feed_forward(m.norm2(m.attention(m.norm1(x)))),
        "The stream is lost: add each part's output to x.",
    ),
    (
        lambda m, x: _fed(m, m.attention(m.norm1(x))),
        "The stream is lost after attention: add its output to x.",
    ),
    (
        lambda m, x: m.feed_forward(m.norm2(_attended(m, x))),
        "The stream is lost after the feed-forward part: add its output to x.",
    ),
    (
        lambda m, x: x + m.feed_forward(m.norm2(_attended(m, x))),
        "What attention added is lost: the feed-forward part adds to the sum, x = x + ...",
    ),
    (
        lambda m, x: _attended(m, x) + m.feed_forward(m.norm2(x)),
        "Both parts read the same x: the second should read what the first has left.",
    ),
    (
        lambda m, x: _attended(m, x) + m.feed_forward(m.norm2(m.attention(m.norm1(x)))),
        "The feed-forward part reads only what attention adds, not the whole stream.",
    ),
    (_normed, STREAM_NORMED),
    (_normed_once, STREAM_NORMED),
    (_normed_second, STREAM_NORMED),
    (
        _exchanged,
        "norm1 belongs to attention and norm2 to the feed-forward part; they are exchanged.",
    ),
    (_no_norms, "The norms are missing: each part reads a normed copy of the stream."),
    (lambda m, x: _fed(m, x + m.attention(x)), "norm1 is missing: attention reads norm1(x)."),
    (_no_norm2, "norm2 is missing: the feed-forward part reads norm2(x)."),
    (_attended, "The feed-forward part is missing."),
    (_fed, "Attention is missing."),
    (lambda m, x: _attended(m, _fed(m, x)), "Attention comes first, then the feed-forward part."),
]


@verdict
def check_decoder_layer(layer_class: type[nn.Module]) -> str:
    """Notebook 02, exercise 3. Returns a verdict; raises AssertionError on a wrong layer."""
    torch.manual_seed(0)
    right, sizes = DecoderLayer, {"d_model": 12, "d_ff": 24}
    for more in ({"num_heads": 3, "dropout": 0.25}, {}):
        module = made(layer_class, right, Use("DecoderLayer", sizes | more, ()))
        rests(module, random(0, 2, 5, 12), NEVER_RESTS)
    judge(
        using(layer_class, right),
        using(right, right),
        _uses(),
        [
            *((_layer(wrong), advice) for wrong, advice in WRONG_LAYERS),
            (using(_OneHead, right), "The attention has one head: hand num_heads on to it."),
        ],
        number=60,
    )
    judge(
        learning(layer_class, right),
        learning(right, right),
        _uses(),
        number=5,
        advice=DETACHED,
    )
    use = Use("DecoderLayer", {"d_model": 24, "d_ff": 7, "num_heads": 4}, ())
    shapes = ((2, 4), (2, 4), (1, 1), (5, 6), (1, LONG))
    inputs = [random(seed, *shape, 24) for seed, shape in enumerate(shapes)]
    right_again(layer_class, right, use, inputs)
    for more in ({"num_heads": 3, "dropout": 0.25}, {"num_heads": 2, "dropout": 0.6}, {}):
        use = Use("DecoderLayer", sizes | more, (), training=True)
        layer_drops(made(layer_class, right, use), more.get("dropout", DEFAULT))
    follows_its_device(
        lambda module, device: module(torch.empty(2, 5, 12, device=device)),
        "DecoderLayer",
        layer_class(12, 24, 3),
    )
    return (
        "DecoderLayer is right: pre-norm, two norms, two additions, its gradients, and dropout on "
        "what is added."
    )
