"""Wrong models that students write to notebook 02: each is told what is wrong with it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils import checks
from course_utils.transformer import DecoderLayer, DecoderOnlyTransformer

pytestmark = pytest.mark.authors


class NoPositions(DecoderOnlyTransformer):
    def embed(self, input_ids, start=0):
        return self.token_embedding(input_ids)


class PositionsFromOne(DecoderOnlyTransformer):
    def embed(self, input_ids, start=0):
        positions = torch.arange(input_ids.size(1)).add(1) % self.max_seq_len
        return self.token_embedding(input_ids) + self.pos_embedding(positions)


class NoLastNorm(DecoderOnlyTransformer):
    def forward(self, input_ids):
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.output_projection(x), None


class FirstLayerAgain(DecoderOnlyTransformer):
    def forward(self, input_ids):
        x = self.embed(input_ids)
        for _ in self.layers:
            x = self.layers[0](x)
        return self.output_projection(self.norm(x)), None


class PositionsFromOneWithoutEnd(DecoderOnlyTransformer):
    def embed(self, input_ids, start=0):
        return super().embed(input_ids, 1)


class OneHead(DecoderOnlyTransformer):
    def __init__(self, *shape, num_heads=1, **options):
        super().__init__(*shape, **options)


class Layers(DecoderOnlyTransformer):
    def forward(self, input_ids):
        x = self.through(self.embed(input_ids))
        return self.output_projection(self.norm(x)), None


class OneLayer(Layers):
    def through(self, x):
        return self.layers[0](x)


class ThrownAway(Layers):
    def through(self, x):
        for layer in self.layers:
            layer(x)
        return x


class AllReadX(Layers):
    def through(self, x):
        return [layer(x) for layer in self.layers][-1]


class OneObject(DecoderOnlyTransformer):
    def __init__(self, *shape, **options):
        super().__init__(*shape, **options)
        self.layers = nn.ModuleList([self.layers[0]] * self.num_layers)


class Probabilities(DecoderOnlyTransformer):
    def forward(self, input_ids):
        return super().forward(input_ids)[0].softmax(-1), None


class LastOnly(DecoderOnlyTransformer):
    def forward(self, input_ids):
        return super().forward(input_ids)[0][:, -1], None


class WrapsRound(DecoderOnlyTransformer):
    def check_input(self, input_ids, past_kv, use_cache):
        pass

    def embed(self, input_ids, start=0):
        positions = torch.arange(input_ids.size(1)) % self.max_seq_len
        return self.token_embedding(input_ids) + self.pos_embedding(positions)


class LayersForgetDropout(DecoderOnlyTransformer):
    def __init__(
        self, vocab_size, d_model, d_ff, num_layers, max_seq_len, num_heads=1, dropout=0.1
    ):
        super().__init__(vocab_size, d_model, d_ff, num_layers, max_seq_len, num_heads, dropout)
        self.layers = nn.ModuleList(
            DecoderLayer(d_model, d_ff, num_heads) for _ in range(num_layers)
        )


class NoDropout(DecoderOnlyTransformer):
    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.dropout = nn.Dropout(0.0)


class PlainList(DecoderOnlyTransformer):
    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        layers = list(self.layers)
        del self.layers
        self.layers = layers


class OneThing(DecoderOnlyTransformer):
    def forward(self, input_ids):
        return super().forward(input_ids)[0]


class TwoThings(DecoderOnlyTransformer):
    def forward(self, input_ids):
        logits = super().forward(input_ids)[0]
        return logits, logits


def embedding(embed):
    return type(
        "Wrong", (DecoderOnlyTransformer,), {"embed": lambda m, ids, start=0: embed(m, ids)}
    )


def model(forward):
    return type(
        "Wrong", (DecoderOnlyTransformer,), {"forward": lambda m, ids: (forward(m, ids), None)}
    )


def tokens(m, ids):
    return m.token_embedding(ids)


def places(m, ids, more=0):
    return m.pos_embedding(torch.arange(ids.size(1), device=ids.device) + more)


def run(m, x, layers=None):
    for layer in m.layers if layers is None else layers:
        x = layer(x)
    return x


def last(m, x):
    return m.output_projection(m.norm(x))


ONCE = "on the sum of the two embeddings, once"
WRONG_EMBEDDINGS = [
    (lambda m, ids: tokens(m, ids) + m.pos_embedding(ids), "ids are used as positions"),
    (lambda m, ids: tokens(m, ids) + m.pos_embedding.weight[0], "Every token gets position 0"),
    (lambda m, ids: tokens(m, ids) + places(m, ids).flip(0), "counted from the end"),
    (lambda m, ids: places(m, ids).expand(*ids.shape, -1), "token embeddings are missing"),
    (lambda m, ids: tokens(m, ids) * places(m, ids), "are multiplied; add them"),
    (
        lambda m, ids: tokens(m, ids) * places(m, ids).size(-1) ** 0.5 + places(m, ids),
        "sqrt\\(D\\)",
    ),
    (lambda m, ids: tokens(m, ids) + places(m, ids, 1), "raised IndexError.*position 0, not at 1"),
    (lambda m, ids: m.token_embedding(ids.mul_(0)) + places(m, ids), "changes a tensor"),
    (
        lambda m, ids: tokens(m, ids) + m.pos_embedding(torch.arange(ids.size(1))),
        "is not dropped",
    ),
    (
        lambda m, ids: m.dropout(tokens(m, ids) + m.pos_embedding(torch.arange(ids.size(1)))),
        "fails on another device",
    ),
    (lambda m, ids: m.dropout(tokens(m, ids).detach() + places(m, ids)), "something detached"),
    (lambda m, ids: tokens(m, ids) + places(m, ids), f"is not dropped.*{ONCE}"),
    (lambda m, ids: m.dropout(tokens(m, ids)) + places(m, ids), f"not what dropout.*{ONCE}"),
    (lambda m, ids: tokens(m, ids) + m.dropout(places(m, ids)), f"not what dropout.*{ONCE}"),
    (
        lambda m, ids: m.dropout(tokens(m, ids)) + m.dropout(places(m, ids)),
        f"not what dropout.*{ONCE}",
    ),
    (
        lambda m, ids: m.dropout(m.dropout(tokens(m, ids) + places(m, ids))),
        f"dropped twice.*{ONCE}",
    ),
    (lambda m, ids: F.dropout(tokens(m, ids) + places(m, ids), 0.1), "something else each time"),
    (
        lambda m, ids: F.dropout(tokens(m, ids) + places(m, ids), 0.1, m.training),
        "is 0 for 1.% of the numbers, and 1.11 times the others",
    ),
    (lambda m, ids: None, "embed\\(.* is None: the function returns nothing"),
]
WRONG_MODELS = [
    (lambda m, ids: last(m, run(m, m.embed(ids), m.layers[:-1])), "The last layer is left out"),
    (lambda m, ids: last(m, run(m, m.embed(ids), m.layers[1:])), "The first layer is left out"),
    (lambda m, ids: last(m, run(m, m.embed(ids), reversed(m.layers))), "in the wrong order"),
    (lambda m, ids: last(m, run(m, run(m, m.embed(ids)))), "The layers run twice"),
    (lambda m, ids: last(m, run(m, tokens(m, ids))), "positions are not added: use embed"),
    (lambda m, ids: last(m, run(m, m.embed(ids))).log_softmax(-1), "no log_softmax at the end"),
    (lambda m, ids: m.norm(run(m, m.embed(ids))), "The output projection is missing"),
    (lambda m, ids: m.output_projection(run(m, m.norm(m.embed(ids)))), "comes before the layers"),
    (lambda m, ids: last(m, m.embed(ids) + run(m, m.embed(ids))), "embed is right: look at forw"),
    (lambda m, ids: last(m, run(m, m.embed(ids))).argmax(-1), "has shape|has dtype"),
    (lambda m, ids: last(m, run(m, m.embed(ids)).detach()), "something detached"),
    (lambda m, ids: last(m, run(m, m.dropout(m.embed(ids)))), f"dropped twice.*{ONCE}"),
    (
        lambda m, ids: last(m, run(m, tokens(m, ids) + places(m, ids))),
        f"first layer is not dropped.*{ONCE}",
    ),
    (lambda m, ids: last(m, m.dropout(run(m, m.embed(ids)))), "dropped after the last layer, too"),
    (lambda m, ids: m.dropout(last(m, run(m, m.embed(ids)))), "dropped after the last layer, too"),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (NoPositions, "position embeddings are not added"),
        (PositionsFromOne, "should be at position 0, not at 1"),
        (PositionsFromOneWithoutEnd, "raised IndexError.*should be at position 0, not at 1"),
        (OneHead, "The layers have one head: hand num_heads on"),
        (OneLayer, "Only the first layer is used"),
        (ThrownAway, "The layers are not used"),
        (AllReadX, "Each layer gets the same x"),
        (OneObject, "The last layer is used each time.*a new object for each"),
        (NoLastNorm, "The last norm, before the output projection, is missing"),
        (FirstLayerAgain, "The first layer is used each time"),
        (Probabilities, "no softmax at the end"),
        (LastOnly, "has shape .*logits of the last position; return those of all"),
        (OneThing, "does not give two things: the logits, and None"),
        (TwoThings, "gives a Tensor as its second result, expected None"),
        (WrapsRound, "11 tokens went through a model with max_seq_len=10"),
        (LayersForgetDropout, "what attention adds is 0 for .*% of the numbers"),
        (NoDropout, "what goes into the first layer is not dropped"),
        (PlainList, "your class has nothing there; expected layers.0.norm1"),
        *((embedding(embed), words) for embed, words in WRONG_EMBEDDINGS),
        *((model(forward), words) for forward, words in WRONG_MODELS),
    ],
)
def test_wrong_model(cls, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_model(cls)


class InSequence(DecoderOnlyTransformer):
    def embed(self, input_ids, start=0):
        where = self.pos_embedding.weight[: input_ids.size(1)]
        return self.dropout(F.embedding(input_ids, self.token_embedding.weight) + where)

    def forward(self, input_ids):
        parts = nn.Sequential(*self.layers, self.norm, self.output_projection)
        return parts(self.embed(input_ids)), None


class ByIndex(DecoderOnlyTransformer):
    def forward(self, input_ids):
        x = self.embed(input_ids)
        for i in range(len(self.layers)):
            x = self.layers[i].forward(x)
        return F.linear(
            self.norm(x), self.output_projection.weight, self.output_projection.bias
        ), None


class OneByOne(DecoderOnlyTransformer):
    """Row after row of the batch, each position's embedding on its own."""

    def embed(self, input_ids, start=0):
        rows = [self.token_embedding(ids) for ids in input_ids]
        x = torch.stack([row + self.pos_embedding.weight[: len(row)] for row in rows])
        return F.dropout(x, self.dropout.p, self.training)

    def forward(self, input_ids):
        return torch.cat([super(OneByOne, self).forward(row[None])[0] for row in input_ids]), None


class WithCumsum(DecoderOnlyTransformer):
    def embed(self, input_ids, start=0):
        positions = torch.ones_like(input_ids).cumsum(1) - 1
        return self.dropout(self.token_embedding(input_ids) + self.pos_embedding(positions))


@pytest.mark.parametrize("cls", [DecoderOnlyTransformer, InSequence, ByIndex, OneByOne, WithCumsum])
def test_right_models_pass(cls):
    checks.check_model(cls)
