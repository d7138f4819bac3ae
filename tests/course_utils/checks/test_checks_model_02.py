"""Wrong models that students write to notebook 02: each is told what is wrong with it."""

import pytest
import torch
from torch import nn

from course_utils import checks
from course_utils.transformer import DecoderOnlyTransformer


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


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (NoPositions, "position embeddings are not added"),
        (PositionsFromOne, "is at position 0, not at 1"),
        (OneHead, "The layers have one head: hand num_heads on"),
        (OneLayer, "Only the first layer is used"),
        (ThrownAway, "The layers are not used"),
        (AllReadX, "Each layer gets the same x"),
        (OneObject, "All layers are one object"),
        (PositionsFromOneWithoutEnd, "is at position 0, not at 1"),
        (NoLastNorm, "The last norm, before the output projection, is missing"),
        (FirstLayerAgain, "The first layer is used each time"),
        (Probabilities, "no softmax at the end"),
        (LastOnly, "has shape \\(2, 20\\), expected \\(2, 6, 20\\)"),
        (WrapsRound, "11 tokens went through a model with max_seq_len=10"),
    ],
)
def test_wrong_model(cls, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_model(cls)


def test_the_right_model_passes():
    checks.check_model(DecoderOnlyTransformer)
