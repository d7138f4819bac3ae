"""Wrong models that students write to notebook 04: each is told what is wrong with it.

Most are the worked answer with one or two lines written otherwise.
"""

import re

import pytest
import torch
from rewritten_answers import refused
from torch import nn

from course_utils import cache_bugs, checks
from course_utils.cache_bugs.masks import UnmaskedAppendModel
from course_utils.cache_bugs.positions import PositionLeaks
from course_utils.checks.n04_embed import WRONG_EMBEDDINGS
from course_utils.checks.n04_wrong_models import WRONG_FORWARDS
from course_utils.kv_cache import GrowingCache
from course_utils.transformer import DecoderOnlyTransformer

RANGE = "torch.arange(start, start + input_ids.size(1), device=input_ids.device)"
SUM = "self.dropout(self.token_embedding(input_ids) + self.pos_embedding(positions))"
TOKENS = "self.token_embedding(input_ids)"
START = "start = 0 if past_kv is None else past_kv.length"
LOOP = "for i, layer in enumerate(self.layers)"
LAYER = "layer(x, past_kv, i)"
LOGITS = "self.output_projection(self.norm(x))"
CHECK = "self.check_input(input_ids, past_kv, use_cache)"
NEW = "if use_cache and past_kv is None:"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([(RANGE, "torch.arange(start, start + input_ids.size(1))")], "fails on another device"),
        ([(RANGE, "torch.arange(input_ids.size(1))")], "`start` is not used"),
        ([(RANGE, RANGE.replace("start", "start + 1"))], "embed(<ids (1, 4)>): the result is"),
        ([(RANGE, RANGE.replace("start", "start + 1"))], "All positions are one too high"),
        ([(RANGE, RANGE.replace("start", "max(start - 1, 0)"))], "all positions are one too low"),
        ([(RANGE, "torch.tensor([start] * input_ids.size(1))")], "the position of its first"),
        ([(RANGE, RANGE.replace("(start, start +", "(start, "))], "start=1): raised RuntimeError"),
        ([("start: int = 0", "start: int = 1")], "embed(<ids (1, 4)>): the result is"),
        ([(SUM, SUM.removeprefix("self.dropout"))], "yours: none is dropped"),
        ([(SUM, f"self.dropout({SUM})")], "yours: others come out"),
        ([(SUM, SUM.replace(" + ", ") + self.dropout("))], "yours: others come out"),
        (
            [(SUM, f"self.dropout({TOKENS}) + self.pos_embedding(positions)")],
            "yours: others come out",
        ),
        ([(SUM, SUM.replace("self.dropout", "nn.functional.dropout"))], "not the same twice"),
        ([(SUM, f"self.dropout({TOKENS})")], "The position embedding is miss"),
        ([(START, "start = 0")], "Each chunk begins at position 0 again"),
        ([(START, START + " + 1")], "With a cache all positions are one too high"),
        ([(START, START + " + (past_kv.length > 0)")], "After a cache all positions are one too h"),
        ([(START, START + "; start = max(start - 1, 0)")], "all positions are one too low"),
        ([(LAYER, "layer(x)")], "Nothing gets into the cache, so each chunk sees only itself"),
        ([(LAYER, "layer(x, past_kv)")], "The layers are not told their numbers"),
        ([(LAYER, "layer(x, past_kv, i + 1)")], "The layers' numbers start at 1"),
        ([(LAYER, "layer(x, past_kv, -i)")], "The layers' numbers are negative"),
        ([(LAYER, "layer(x, past_kv, len(self.layers) - 1 - i)")], "numbers are in reverse"),
        ([(LAYER, f"x + {LAYER}")], "x is added to each layer's output"),
        ([(LAYER, "layer(x, past_kv if start else None, i)")], "Nothing gets into the cache"),
        ([(LOOP, LOOP.replace("layers)", "layers[:-1])"))], "The last layer is not used"),
        ([(LOGITS, "self.output_projection(x)")], "The last norm is missing"),
        ([(LOGITS, LOGITS + "[:, -1]")], "Only the logits of the last position"),
        ([(LOGITS + ", past_kv", LOGITS)], "forward returns a Tensor, expected two things"),
        ([(LOGITS + ", past_kv", LOGITS + ", None")], "no cache although use_cache=True"),
        ([(LOGITS + ", past_kv", "past_kv, " + LOGITS)], "first, expected the logits"),
        ([(NEW, "if past_kv is None:")], "returns a cache although use_cache=False"),
        ([(NEW, "if use_cache:")], "past_kv that is handed in is not used"),
        ([(CHECK, "pass")], "expected a ValueError. Is self.check_input"),
        ([(CHECK, CHECK.replace("past_kv", "None"))], "forward on 2 tokens after 3"),
        ([(CHECK, "self.check_input(input_ids, past_kv, past_kv)")], "and use_cache=False: is acc"),
        (
            [("embed(input_ids, start)", "embed(input_ids, start).data")],
            "(the gradient of token_embedding.weight). Is there a `detach`",
        ),
        ([("num_heads=1, dropout=0.1", "num_heads=2, dropout=0.1")], "Made with its defaults"),
        ([("num_heads, dropout)\n", "num_heads)\n")], "dropout, its own and its layers'"),
    ],
)
def test_wrong_model(changes, words):
    assert words in refused("cached_model", *changes)


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (cache_bugs.NoPositionOffset, "each chunk begins at position 0 again"),
        (PositionLeaks, "in turn with another text: .* of a run without a cache, before, is"),
        (cache_bugs.NoMaskOffsetModel, "With the course's layers and cache in place of yours"),
        (UnmaskedAppendModel, "With the course's layers and cache in place of yours"),
        (cache_bugs.PromptDropped, "returns no cache although use_cache=True: tuple instead"),
        (cache_bugs.WholeSequenceAgain, "returns no cache although use_cache=True: tuple instead"),
    ],
)
def test_wrong_models_of_the_catalogue(cls, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_cached_model(cls)


@pytest.mark.parametrize(("cls", "advice"), WRONG_EMBEDDINGS + WRONG_FORWARDS)
def test_each_mistake_has_a_name(cls, advice):
    class Dropping(cls):
        def embed(self, input_ids, start=0):
            return self.dropout(super().embed(input_ids, start))

    dropping = cls if cls.embed is DecoderOnlyTransformer.embed else Dropping
    with pytest.raises(AssertionError, match=re.escape(advice)):
        checks.check_cached_model(dropping)


def test_with_a_wrong_cache_or_wrong_layers_another_exercise_comes_first():
    class OnlyNew(GrowingCache):
        def append(self, layer, k, v):
            super().append(layer, k, v)
            return k, v

    class Model(DecoderOnlyTransformer):
        def new_cache(self, batch_size):
            return OnlyNew(self, batch_size)

    with pytest.raises(AssertionError, match="so exercises 1 and 2 come first"):
        checks.check_cached_model(Model)


class InOneGo(DecoderOnlyTransformer):
    """Positions from the table, layers by zip, the cache asked for its length by hand."""

    def new_cache(self, batch_size):
        return GrowingCache(self, batch_size)

    def embed(self, input_ids, start=0):
        where = self.pos_embedding.weight.narrow(0, start, input_ids.size(1))
        return self.dropout(where + self.token_embedding.weight[input_ids])

    def forward(self, input_ids, past_kv=None, use_cache=False):
        self.check_input(input_ids, past_kv, use_cache)
        past_kv = past_kv if past_kv or not use_cache else self.new_cache(len(input_ids))
        x = self.embed(input_ids, past_kv.length if past_kv else 0)
        for number, layer in zip(range(self.num_layers), self.layers, strict=True):
            x = layer(x, cache=past_kv, layer=number)
        return nn.Sequential(self.norm, self.output_projection)(x), past_kv


class ByIndex(DecoderOnlyTransformer):
    def embed(self, input_ids, start=0):
        ones = torch.ones_like(input_ids)
        found = self.token_embedding(input_ids) + self.pos_embedding(ones.cumsum(1) - 1 + start)
        return self.dropout(found)


class LeftToTheParent(DecoderOnlyTransformer):
    def forward(self, *args, **options):
        return super().forward(*args, **options)


class OwnDropout(DecoderOnlyTransformer):
    """Draws other numbers in another order."""

    def embed(self, input_ids, start=0):
        whole = self.token_embedding(input_ids)
        whole = whole + self.pos_embedding.weight[start : start + input_ids.size(1)]
        if not self.training:
            return whole
        keep = torch.rand(whole.shape[::-1], device=whole.device).permute(2, 1, 0)
        return whole * (keep >= self.dropout.p) / (1 - self.dropout.p)


@pytest.mark.parametrize(
    "cls", [DecoderOnlyTransformer, InOneGo, ByIndex, LeftToTheParent, OwnDropout]
)
def test_right_models_pass(cls):
    checks.check_cached_model(cls)
