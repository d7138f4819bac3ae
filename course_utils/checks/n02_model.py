"""What the check cell of the whole model calls (notebook 02)."""

from collections.abc import Callable, Iterable

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ..transformer import DecoderOnlyTransformer
from .again import LONG, right_again
from .common import verdict
from .elsewhere import follows_its_device
from .judged import DETACHED, Answer, judge
from .modules import Use, learning, made, using
from .n02_dropout import DEFAULT, NEVER_RESTS, dropped, layer_drops, rests
from .n02_layer import DROPOUTS

SIZES = {"vocab_size": 20, "d_model": 12, "d_ff": 24, "num_layers": 2, "max_seq_len": 10}
NAME = "DecoderOnlyTransformer"
Forward = Callable[[DecoderOnlyTransformer, Tensor], Tensor]


@st.composite
def _uses(draw: st.DrawFn, method: str = "") -> Use:
    """Models of up to three layers, on ids of up to all its positions."""
    vocab_size, d_ff, num_layers, max_seq_len, num_heads = (
        draw(st.integers(1, n)) for n in (9, 4, 3, 6, 3)
    )
    sizes = {"vocab_size": vocab_size, "d_model": num_heads * draw(st.integers(3, 4))}
    sizes |= {"d_ff": d_ff, "num_layers": num_layers, "max_seq_len": max_seq_len}
    if draw(st.booleans()) or num_heads > 1:
        sizes["num_heads"] = num_heads
    sizes |= draw(st.sampled_from(DROPOUTS))
    batch, seq_len = draw(st.integers(1, 3)), draw(st.integers(1, max_seq_len))
    row = st.lists(st.integers(0, vocab_size - 1), min_size=seq_len, max_size=seq_len)
    ids = torch.tensor([draw(row) for _ in range(batch)])
    dtype = draw(st.sampled_from((torch.float64, torch.float32)))
    name = f"{NAME}{method and '.' + method}"
    return Use(name, sizes, (ids,), draw(st.integers(0, 9)), dtype=dtype)


def _logits(found: object) -> object:
    if not isinstance(found, tuple) or len(found) != 2:
        raise AssertionError("does not give two things: the logits, and None")
    logits, rest = found
    if rest is not None:
        raise AssertionError(f"gives a {type(rest).__name__} as its second result, expected None")
    return logits


def _embedding(embed: Forward) -> Answer:
    wrong = type("Wrong", (DecoderOnlyTransformer,), {"embed": embed})
    return using(wrong, DecoderOnlyTransformer, "embed")


def _positions(ids: Tensor) -> Tensor:
    return torch.arange(ids.size(1))


FROM_ZERO = "The first token should be at position 0, not at 1."
WRONG_EMBEDDINGS = [
    (
        lambda m, ids: m.token_embedding(ids),
        "The position embeddings are not added to the token's.",
    ),
    (
        lambda m, ids: m.pos_embedding(_positions(ids)).expand(*ids.shape, -1),
        "The token embeddings are missing.",
    ),
    (lambda m, ids: m.token_embedding(ids) + m.pos_embedding(_positions(ids) + 1), FROM_ZERO),
    (
        lambda m, ids: (
            m.token_embedding(ids) + m.pos_embedding((_positions(ids) + 1) % m.max_seq_len)
        ),
        FROM_ZERO,
    ),
    (
        lambda m, ids: m.token_embedding(ids) + m.pos_embedding(ids),
        "The ids are used as positions. Positions are 0, 1, 2, ...",
    ),
    (
        lambda m, ids: m.token_embedding(ids) + m.pos_embedding(_positions(ids).flip(0)),
        "Positions are counted from the end; the first token should be at position 0.",
    ),
    (
        lambda m, ids: m.token_embedding(ids) + m.pos_embedding(torch.zeros_like(ids)),
        "Every token gets position 0.",
    ),
    (
        lambda m, ids: m.token_embedding(ids) * m.pos_embedding(_positions(ids)),
        "The two embeddings are multiplied; add them.",
    ),
    (
        lambda m, ids: (
            m.token_embedding(ids) * m.token_embedding.embedding_dim**0.5
            + m.pos_embedding(_positions(ids))
        ),
        "The token embeddings are multiplied by sqrt(D). In this model they are not.",
    ),
]


def _model(forward: Forward) -> Answer:
    def forwards(self: DecoderOnlyTransformer, ids: Tensor) -> tuple[Tensor, None]:
        return forward(self, ids), None

    wrong = type("Wrong", (DecoderOnlyTransformer,), {"forward": forwards})
    return using(wrong, DecoderOnlyTransformer, result=_logits)


def _through(layers: Callable[[nn.ModuleList], Iterable[nn.Module]]) -> Forward:
    """The model with these of its layers."""
    return lambda m, ids: _last(m, nn.Sequential(*layers(m.layers))(m.embed(ids)))


def _last(m: DecoderOnlyTransformer, x: Tensor) -> Tensor:
    return m.output_projection(m.norm(x))


def _run(m: DecoderOnlyTransformer, x: Tensor) -> Tensor:
    return nn.Sequential(*m.layers)(x)


def _twice_added(m: DecoderOnlyTransformer, ids: Tensor) -> Tensor:
    x = m.embed(ids)
    for layer in m.layers:
        x = x + layer(x)
    return _last(m, x)


def _normed_each_time(m: DecoderOnlyTransformer, ids: Tensor) -> Tensor:
    x = m.embed(ids)
    for layer in m.layers:
        x = m.norm(layer(x))
    return m.output_projection(x)


class _OneHead(DecoderOnlyTransformer):
    def __init__(self, *sizes: int, num_heads: int = 1, **options: float):
        super().__init__(*sizes, **options)


WRONG_MODELS = [
    (_through(lambda layers: []), "The layers are not used: x = layer(x) for each of them."),
    (
        _through(lambda layers: layers[:1]),
        "Only the first layer is used. Return after the loop, not in it.",
    ),
    (
        _through(lambda layers: layers[-1:]),
        "Each layer gets the same x: the next one needs the result, x = layer(x).",
    ),
    (_through(lambda layers: layers[:-1]), "The last layer is left out."),
    (_through(lambda layers: layers[1:]), "The first layer is left out."),
    (
        _through(lambda layers: [layers[0]] * len(layers)),
        "The first layer is used each time: use the loop's own.",
    ),
    (
        _through(lambda layers: [layers[-1]] * len(layers)),
        "The last layer is used each time: use the loop's own, and make a new object for each in "
        "the list.",
    ),
    (_through(lambda layers: reversed(layers)), "The layers run in the wrong order."),
    (_through(lambda layers: [*layers, *layers]), "The layers run twice."),
    (_twice_added, "Each layer adds to its x itself: x = layer(x), not x + layer(x)."),
    (
        lambda m, ids: m.output_projection(_run(m, m.embed(ids))),
        "The last norm, before the output projection, is missing.",
    ),
    (
        lambda m, ids: m.output_projection(_run(m, m.norm(m.embed(ids)))),
        "The norm comes before the layers; it should come after them.",
    ),
    (_normed_each_time, "The norm comes after each layer; it should come once, after the last."),
    (lambda m, ids: m.norm(_run(m, m.embed(ids))), "The output projection is missing."),
    (
        lambda m, ids: _last(m, _run(m, m.token_embedding(ids))),
        "The positions are not added: use embed.",
    ),
    (
        lambda m, ids: _last(m, _run(m, m.embed(ids))).softmax(-1),
        "Return the logits as they are: no softmax at the end.",
    ),
    (
        lambda m, ids: _last(m, _run(m, m.embed(ids))).log_softmax(-1),
        "Return the logits as they are: no log_softmax at the end.",
    ),
    (
        lambda m, ids: _last(m, _run(m, m.embed(ids)))[:, -1],
        "These are the logits of the last position; return those of all.",
    ),
]


@verdict
def check_model(model_class: type[nn.Module]) -> str:
    """Notebook 02, exercise 4. Returns a verdict; raises AssertionError on a wrong model."""
    torch.manual_seed(0)
    right = DecoderOnlyTransformer
    for more in ({"num_heads": 3, "dropout": 0.25}, {}):
        module = made(model_class, right, Use(NAME, SIZES | more, ()))
        rests(module, torch.arange(10).view(2, 5), NEVER_RESTS)
    judge(
        using(model_class, right, "embed"),
        using(right, right, "embed"),
        _uses("embed"),
        [(_embedding(wrong), advice) for wrong, advice in WRONG_EMBEDDINGS],
        number=40,
    )
    judge(
        using(model_class, right, result=_logits),
        using(right, right, result=_logits),
        _uses(),
        [
            *((_model(wrong), advice) for wrong, advice in WRONG_MODELS),
            (
                using(_OneHead, right, result=_logits),
                "The layers have one head: hand num_heads on.",
            ),
        ],
        number=40,
        advice="embed is right: look at forward.",
    )
    judge(
        learning(model_class, right, _logits),
        learning(right, right, _logits),
        _uses(),
        number=4,
        advice=DETACHED,
    )
    sizes = {"vocab_size": 150, "d_model": 12, "d_ff": 5, "num_layers": 5, "max_seq_len": LONG}
    shapes = ((2, 4), (2, 4), (2, 2), (5, 6), (1, LONG))
    inputs = [
        torch.randint(150, shape, generator=torch.Generator().manual_seed(seed))
        for seed, shape in enumerate(shapes)
    ]
    right_again(model_class, right, Use(NAME, sizes | {"num_heads": 2}, ()), inputs, _logits)
    _no_further(made(model_class, right, Use(NAME, SIZES, ())))
    for more in ({"num_heads": 3, "dropout": 0.25}, {}):
        use = Use(NAME, SIZES | more, (), training=True)
        _drops(made(model_class, right, use), more.get("dropout", DEFAULT))
    follows_its_device(
        lambda module, device: module(torch.zeros(2, 5, dtype=torch.long, device=device)),
        NAME,
        model_class(**SIZES),
    )
    return (
        "DecoderOnlyTransformer is right, up to max_seq_len and no further: its logits, its "
        "gradients, and dropout on the sum of the embeddings."
    )


def _no_further(model: nn.Module) -> None:
    """Raise AssertionError if a model takes one token more than it has positions."""
    try:
        model(torch.zeros(1, SIZES["max_seq_len"] + 1, dtype=torch.long))
    except Exception:
        return
    raise AssertionError(
        "11 tokens went through a model with max_seq_len=10, which has no position for the last "
        "one: expected an error."
    )


class _Seen(nn.Module):
    """A layer that adds nothing and keeps what comes in, call by call."""

    def __init__(self):
        super().__init__()
        self.calls: list[Tensor] = []

    def forward(self, x: Tensor, *_: object) -> Tensor:
        self.calls.append(x)
        return x


@torch.no_grad()
def _drops(model: nn.Module, p: float) -> None:
    """Raise AssertionError unless dropout goes on the sum of the embeddings, and in the layers.

    Whether it is in `embed` or in `forward` is the model's own affair, as in notebook 04.
    """
    layer_drops(model.layers[0], p)
    for number in range(len(model.layers)):
        model.layers[number] = _Seen()
    ids = torch.arange(64).view(8, 8) % SIZES["vocab_size"]
    whole = model.eval().embed(ids)
    logits = model.train()(ids)[0]
    seen, left = (torch.cat(layer.calls) for layer in model.layers)
    if how := dropped(seen, whole, p):
        raise AssertionError(
            f"With dropout={p}, in training, what goes into the first layer {how}. self.dropout "
            "goes on the sum of the two embeddings, once."
        )
    if not torch.allclose(logits, model.output_projection(model.norm(left))):
        raise AssertionError(
            f"With dropout={p}, in training, numbers are dropped after the last layer, too. Of "
            "what the model does itself, dropout goes on the sum of the embeddings alone."
        )
