"""Wrong models that students write to notebook 04: each is told what is wrong with it.

Most are the worked answer with one or two lines written otherwise.
"""

import re

import pytest
import torch
from rewritten_answers import refused
from torch import nn

from course_utils import cache_bugs, checks
from course_utils.attention import MultiHeadAttention
from course_utils.cache_bugs.masks import UnmaskedAppendModel
from course_utils.cache_bugs.positions import PositionLeaks
from course_utils.checks.n04_embed import WRONG_EMBEDDINGS
from course_utils.checks.n04_wrong_models import WRONG_FORWARDS
from course_utils.kv_cache import GrowingCache
from course_utils.transformer import DecoderOnlyTransformer

pytestmark = pytest.mark.authors

RANGE = "torch.arange(start, start + input_ids.size(1), device=input_ids.device)"
SUM = "self.dropout(self.token_embedding(input_ids) + self.pos_embedding(positions))"
TOKENS = "self.token_embedding(input_ids)"
START = "start = 0 if past_kv is None else past_kv.length"
EMBED = "self.embed(input_ids, start)"
DROPPED_AFTER = "numbers are dropped after the embeddings, too"
LOOP = "for i, layer in enumerate(self.layers)"
LAYER = "layer(x, past_kv, i)"
LOGITS = "self.output_projection(self.norm(x))"
CHECK = "self.check_input(input_ids, past_kv, use_cache)"
NEW = "if use_cache and past_kv is None:"


@pytest.mark.sampled(3)
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
        ([(SUM, SUM.removeprefix("self.dropout"))], "without a cache, what goes into the first l"),
        ([(SUM, SUM.removeprefix("self.dropout"))], "layer is not dropped: expected 0 for 25%"),
        ([(SUM, f"self.dropout({SUM})")], "is dropped twice"),
        ([(EMBED, f"self.dropout({EMBED})")], "is dropped twice"),
        ([(EMBED, f"({EMBED} if start else self.dropout({EMBED}))")], "is dropped twice"),
        ([(SUM, f"self.dropout({SUM}) if start else {SUM}")], "after 3 tokens in a cache, what go"),
        (
            [(EMBED, f"(self.dropout({EMBED}) if use_cache else {EMBED})")],
            "with a cache, what goes",
        ),
        ([(SUM, SUM.replace(" + ", ") + self.dropout("))], "is not what dropout makes of it"),
        (
            [(SUM, f"self.dropout({TOKENS}) + self.pos_embedding(positions)")],
            "is not what dropout makes of it",
        ),
        ([(LOGITS, "self.output_projection(self.dropout(self.norm(x)))")], DROPPED_AFTER),
        ([(LOGITS, "self.output_projection(self.norm(self.dropout(x)))")], DROPPED_AFTER),
        ([(LOGITS, f"self.dropout({LOGITS})")], DROPPED_AFTER),
        ([(LAYER, f"self.dropout({LAYER})")], DROPPED_AFTER),
        (
            [
                (SUM, SUM.removeprefix("self.dropout")),
                (EMBED, f"nn.functional.dropout({EMBED}, self.dropout.p)"),
            ],
            "After eval() it gives something else each time",
        ),
        ([("x = " + LAYER, LAYER)], "What the layers return is not used"),
        ([(START, "start = past_kv.length")], "Without a cache past_kv is None"),
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


@pytest.mark.sampled(3)
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


def test_a_cache_or_attention_that_is_still_to_be_written_comes_first():
    class Cache(GrowingCache):
        def append(self, layer, k, v):
            raise NotImplementedError

    class Attention(MultiHeadAttention):
        def forward(self, x, cache=None, layer=0):
            raise NotImplementedError

    class Model(DecoderOnlyTransformer):
        def new_cache(self, batch_size):
            return Cache(self, batch_size)

    class OtherModel(DecoderOnlyTransformer):
        def __init__(self, vocab_size, d_model, *sizes, num_heads=1, **others):
            super().__init__(vocab_size, d_model, *sizes, num_heads=num_heads, **others)
            for layer in self.layers:
                layer.attention = Attention(d_model, num_heads)

    class ToDo(OtherModel):
        def forward(self, input_ids, past_kv=None, use_cache=False):
            raise NotImplementedError

    with pytest.raises(AssertionError, match="Cache.append is still to be written. Exercise 1 c"):
        checks.check_cached_model(Model)
    with pytest.raises(AssertionError, match="Attention.forward is still .* Exercise 2 comes fir"):
        checks.check_cached_model(OtherModel)
    with pytest.raises(NotImplementedError):
        checks.check_cached_model(ToDo)


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


class DropsInForward(DecoderOnlyTransformer):
    """The same model, with its dropout one method further."""

    def embed(self, input_ids, start=0):
        positions = torch.arange(start, start + input_ids.size(1), device=input_ids.device)
        return self.token_embedding(input_ids) + self.pos_embedding(positions)

    def forward(self, input_ids, past_kv=None, use_cache=False):
        self.check_input(input_ids, past_kv, use_cache)
        if use_cache and past_kv is None:
            past_kv = self.new_cache(input_ids.size(0))
        x = self.dropout(self.embed(input_ids, 0 if past_kv is None else past_kv.length))
        for i, layer in enumerate(self.layers):
            x = layer(x, past_kv, i)
        return self.output_projection(self.norm(x)), past_kv


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
    "cls",
    [DecoderOnlyTransformer, InOneGo, ByIndex, LeftToTheParent, DropsInForward, OwnDropout],
)
def test_right_models_pass(cls):
    checks.check_cached_model(cls)
