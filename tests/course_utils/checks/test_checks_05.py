"""Wrong answers that students write to notebook 05: each fails, with a message about its fault."""

import pytest
import torch

from course_utils import checks
from course_utils.attention import MultiHeadAttention, attention, causal_mask
from course_utils.cache_bugs import WithAttention, WithCache
from course_utils.kv_cache import GrowingCache, PreallocatedCache
from course_utils.transformer import DecoderOnlyTransformer


class KeysMoveAlone(GrowingCache):
    def reorder(self, rows):
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[torch.arange(len(rows)) % 3] for values in self.values]
        self.batch_size = len(rows)


class ValuesStay(GrowingCache):
    def reorder(self, rows):
        self.keys = [keys[rows] for keys in self.keys]
        self.batch_size = len(rows)


class FirstLayerOnly(GrowingCache):
    def reorder(self, rows):
        some = torch.arange(len(rows)) % 3
        self.keys = [self.keys[0][rows], *(keys[some] for keys in self.keys[1:])]
        self.values = [values[rows] for values in self.values]
        self.batch_size = len(rows)


class SizeForgotten(GrowingCache):
    def reorder(self, rows):
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]


class NothingMoves(GrowingCache):
    def reorder(self, rows):
        self.batch_size = len(rows)
        self.keys = [keys[torch.arange(len(rows)) % 3] for keys in self.keys]
        self.values = [values[torch.arange(len(rows)) % 3] for values in self.values]


class Inverse(GrowingCache):
    def reorder(self, rows):
        super().reorder(rows.flip(0))


class Sorted(GrowingCache):
    def reorder(self, rows):
        super().reorder(rows.sort().values)


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (KeysMoveAlone, "a logit of what follows"),
        (ValuesStay, "Do keys \\*and\\* values move, in every layer?"),
        (FirstLayerOnly, "a logit of what follows"),
        (SizeForgotten, "batch_size is 3; expected 5"),
        (NothingMoves, "a logit of what follows"),
        (Inverse, "a logit of what follows"),
        (Sorted, "a logit of what follows"),
    ],
)
def test_wrong_reorder(cls, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_reorder(cls)


class Unmasked(MultiHeadAttention):
    def attend(self, q, k, v):
        return attention(q, k, v)


class NoOffset(MultiHeadAttention):
    def attend(self, q, k, v):
        mask = torch.ones(q.size(-2), k.size(-2), dtype=torch.bool).tril()
        return attention(q, k, v, mask)


class RowsOneUp(MultiHeadAttention):
    def attend(self, q, k, v):
        new, stored = q.size(-2), k.size(-2)
        square = causal_mask(stored, stored)
        return attention(q, k, v, square if new == stored else square[-new - 1 : -1])


class OneQueryOnly(MultiHeadAttention):
    def attend(self, q, k, v):
        if q.size(-2) == 1:
            return attention(q, k, v)
        return attention(q, k, v, causal_mask(q.size(-2), q.size(-2)))


class Untouched(MultiHeadAttention):
    def attend(self, q, k, v):
        raise NotImplementedError("Your turn: the card above says what to build.")


class ReturnsNothing(MultiHeadAttention):
    def attend(self, q, k, v):
        attention(q, k, v, causal_mask(q.size(-2), k.size(-2)))


class WrongScale(MultiHeadAttention):
    def attend(self, q, k, v):
        return attention(2 * q, k, v, causal_mask(q.size(-2), k.size(-2)))


@pytest.mark.parametrize(
    ("attention_class", "words"),
    [
        (Unmasked, "wrong without its cache"),
        (NoOffset, "Identical to `no_mask_offset`"),
        (RowsOneUp, "Identical to `self_excluded`"),
        (OneQueryOnly, "prefill 1, then 2 tokens: RuntimeError: The size of tensor"),
        (ReturnsNothing, "wrong without its cache"),
        (WrongScale, "wrong without its cache"),
    ],
)
def test_a_wrong_cure_of_attention(attention_class, words):
    model = type("Cured1", (WithAttention,), {"attention_class": attention_class})
    with pytest.raises(AssertionError, match=f"Cured1 is still ill.*{words}"):
        checks.check_cured(model)


class TupleCache:
    """Patient 2 of notebook 05, with `keep` still to be written."""

    def __init__(self, model, batch_size):
        self.batch_size, self.length = batch_size, 0
        self.stored = [None] * model.num_layers

    def append(self, layer, k, v):
        self.length += k.size(2) if layer == 0 else 0
        old = self.stored[layer]
        both = (k, v) if old is None else tuple(map(torch.cat, zip(old, (k, v)), (2, 2)))  # noqa: B905
        return self.keep(layer, k, v, *both)


class AsItWas(TupleCache):
    def keep(self, layer, k, v, keys, values):
        self.stored[layer] = self.stored[layer] or (keys, values)
        return keys, values


class OnlyTheNewest(TupleCache):
    def keep(self, layer, k, v, keys, values):
        self.stored[layer] = k, v
        return keys, values


class StoresTwice(TupleCache):
    def keep(self, layer, k, v, keys, values):
        again = self.stored[layer] is not None
        self.stored[layer] = (
            (torch.cat([keys, k], 2), torch.cat([values, v], 2)) if again else (k, v)
        )
        return keys, values


class ValuesNotStored(TupleCache):
    def keep(self, layer, k, v, keys, values):
        self.stored[layer] = keys, torch.zeros_like(values)
        return keys, values


class ReturnsTheNew(TupleCache):
    def keep(self, layer, k, v, keys, values):
        self.stored[layer] = keys, values
        return k, v


class KeepsWithoutReturn(TupleCache):
    def keep(self, layer, k, v, keys, values):
        self.stored[layer] = keys, values


class CountsPerLayer(TupleCache):
    def keep(self, layer, k, v, keys, values):
        self.stored[layer] = keys, values
        self.length += k.size(2) if layer else 0
        return keys, values


class Right(TupleCache):
    def keep(self, layer, k, v, keys, values):
        self.stored[layer] = keys, values
        return keys, values


@pytest.mark.parametrize(
    ("cache_class", "words"),
    [
        (AsItWas, "Identical to `stale`"),
        (OnlyTheNewest, "3 tokens, 1 at a time from an empty cache: wrong from position 2 on"),
        (StoresTwice, "Identical to `appended_twice`"),
        (ValuesNotStored, "Identical to `values_not_cached`"),
        (ReturnsTheNew, "2 tokens, 1 at a time from an empty cache: wrong from position 1 on"),
        (KeepsWithoutReturn, "Something is None: does each function end in `return`?"),
        (CountsPerLayer, "After 6 tokens length is 12: count them in one layer only"),
    ],
)
def test_a_wrong_cure_of_a_cache(cache_class, words):
    model = type("Cured2", (WithCache,), {"cache_class": cache_class})
    with pytest.raises(AssertionError, match=f"Cured2 is still ill.*({words})"):
        checks.check_cured(model)


class KeptForever(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        if not hasattr(self, "cache"):
            self.cache = GrowingCache(self, batch_size)
        return self.cache


class KeptPerBatchSize(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        if not hasattr(self, "cache") or self.cache.batch_size != batch_size:
            self.cache = GrowingCache(self, batch_size)
        return self.cache


class Emptied(DecoderOnlyTransformer):
    """The old cache is emptied: two generations at the same time still share it."""

    def new_cache(self, batch_size):
        if not hasattr(self, "cache"):
            self.cache = GrowingCache(self, batch_size)
        self.cache.__init__(self, batch_size)
        return self.cache


class OneRow(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        return GrowingCache(self, 1)


class NoCache(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        GrowingCache(self, batch_size)


class TheClass(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        return GrowingCache


@pytest.mark.parametrize(
    ("model_class", "words"),
    [
        (KeptForever, "a new cache; 1 token; a new cache; 1 token: wrong from position 0 on"),
        (KeptPerBatchSize, "Identical to `leaks_into_the_next`"),
        (Emptied, "B: a new cache; B: 1 token of text 1; A: 1 token: wrong from position 1 on"),
        (OneRow, "a new cache for 2 rows; 1 token: RuntimeError: Sizes of tensors"),
        (NoCache, "No cache comes back.*1 at a time.*wrong from position 1 on"),
        (TheClass, "1 token into an empty cache: TypeError"),
    ],
)
def test_a_wrong_cure_of_a_model(model_class, words):
    with pytest.raises(AssertionError, match=f"{model_class.__name__} is still ill.*{words}"):
        checks.check_cured(model_class)


def test_an_untouched_cure_says_so():
    model = type("Cured1", (WithAttention,), {"attention_class": Untouched})
    with pytest.raises(NotImplementedError, match="the card above"):
        checks.check_cured(model)


def test_right_cures_pass():
    checks.check_cured(DecoderOnlyTransformer)
    assert "healthy" in checks.check_cured(type("Cured2", (WithCache,), {"cache_class": Right}))


def test_a_right_reorder_passes():
    checks.check_reorder(PreallocatedCache)
