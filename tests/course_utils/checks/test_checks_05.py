"""Wrong answers that students write to notebook 04: each fails, with a message about its fault."""

import pytest
import torch

from course_utils import cache_bugs, checks
from course_utils.attention import MultiHeadAttention, attention, causal_mask
from course_utils.cache_bugs import WithAttention, WithCache
from course_utils.generation import decode_loop, next_token
from course_utils.kv_cache import GrowingCache, PreallocatedCache
from course_utils.transformer import DecoderOnlyTransformer


class OnlyNew(GrowingCache):
    def append(self, layer, k, v):
        super().append(layer, k, v)
        return k, v


class OldOnly(GrowingCache):
    def append(self, layer, k, v):
        before = self.keys[layer], self.values[layer]
        super().append(layer, k, v)
        return before


class AlongHeads(GrowingCache):
    def append(self, layer, k, v):
        self.keys[layer] = torch.cat([self.keys[layer], k], dim=2)
        self.values[layer] = torch.cat([self.values[layer].flip(1), v], dim=2)
        return self.keys[layer], self.values[layer]


class NewFirst(GrowingCache):
    def append(self, layer, k, v):
        self.keys[layer] = torch.cat([k, self.keys[layer]], dim=2)
        self.values[layer] = torch.cat([v, self.values[layer]], dim=2)
        return self.keys[layer], self.values[layer]


class OneLayer(GrowingCache):
    def append(self, layer, k, v):
        return super().append(0, k, v)


class NeverStored(GrowingCache):
    def append(self, layer, k, v):
        return torch.cat([self.keys[layer], k], dim=2), torch.cat([self.values[layer], v], dim=2)


class KeysForValues(GrowingCache):
    def append(self, layer, k, v):
        return super().append(layer, k, k)


class ChangesItsInput(GrowingCache):
    def append(self, layer, k, v):
        found = super().append(layer, k, v)
        k.zero_()
        return found


class ReturnsNothing(GrowingCache):
    def append(self, layer, k, v):
        super().append(layer, k, v)


class CountsCalls(GrowingCache):
    calls = 0

    @property
    def length(self):
        return self.calls

    def append(self, layer, k, v):
        self.calls += layer == 0
        return super().append(layer, k, v)


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (OnlyNew, "returns only the new keys"),
        (OldOnly, "has shape \\(1, 3, 0, 4\\), expected \\(1, 3, 3, 4\\)"),
        (AlongHeads, "tensor of values that append returns for layer 0"),
        (
            NewFirst,
            "after 3 positions and 1 more, the tensor of keys that append returns for layer 0",
        ),
        (OneLayer, "tensor of keys that append returns for layer 1"),
        (NeverStored, "length is 0 after 3 positions"),
        (KeysForValues, "tensor of values that append returns for layer 0"),
        (ChangesItsInput, "was changed"),
        (ReturnsNothing, "returns two tensors"),
        (CountsCalls, "length is 1 after 3 positions"),
    ],
)
def test_wrong_cache(cls, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_cache(cls)


class WholeRoom(PreallocatedCache):
    def append(self, layer, k, v):
        super().append(layer, k, v)
        return self.keys[layer], self.values[layer]


class OneCountForAll(PreallocatedCache):
    def append(self, layer, k, v):
        start, end = self.lengths[0], self.lengths[0] + k.size(2)
        self.keys[layer, :, :, start:end] = k
        self.values[layer, :, :, start:end] = v
        self.lengths[0] = end
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class AlwaysAtTheStart(PreallocatedCache):
    def append(self, layer, k, v):
        self.keys[layer, :, :, : k.size(2)] = k
        self.values[layer, :, :, : k.size(2)] = v
        self.lengths[layer] += k.size(2)
        end = self.lengths[layer]
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class WritesOnePosition(PreallocatedCache):
    def append(self, layer, k, v):
        start, end = self.lengths[layer], self.lengths[layer] + k.size(2)
        self.keys[layer, :, :, start] = k[:, :, -1]
        self.values[layer, :, :, start] = v[:, :, -1]
        self.lengths[layer] = end
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class ValuesForgotten(PreallocatedCache):
    def append(self, layer, k, v):
        return super().append(layer, k, torch.zeros_like(v))


class Copies(PreallocatedCache):
    def append(self, layer, k, v):
        keys, values = super().append(layer, k, v)
        self.kept = [*getattr(self, "kept", []), keys.clone(), values.clone()]
        return self.kept[-2], self.kept[-1]


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (WholeRoom, "has shape \\(1, 3, 16, 4\\), expected \\(1, 3, 3, 4\\)"),
        (OneCountForAll, "layer 1"),
        (AlwaysAtTheStart, "after 3 positions and 1 more"),
        (WritesOnePosition, "after 0 positions and 3 more"),
        (ValuesForgotten, "tensor of values that append returns for layer 0"),
        (Copies, "so they were copied"),
        (GrowingCache, "so they were copied"),
    ],
)
def test_wrong_preallocated_cache(cls, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_preallocated(cls)


class With(MultiHeadAttention):
    def forward(self, x, cache=None, layer=0):
        q, k, v = (self.split_heads(W(x)) for W in (self.W_q, self.W_k, self.W_v))
        if cache is not None:
            k, v = self.stored(cache, layer, k, v)
        return self.W_o(self.merge_heads(self.attend(q, k, v)))

    def stored(self, cache, layer, k, v):
        return cache.append(layer, k, v)


class ResultIgnored(With):
    def stored(self, cache, layer, k, v):
        cache.append(layer, k, v)
        return k, v


class LayerZero(With):
    def stored(self, cache, layer, k, v):
        return cache.append(0, k, v)


class KeysOnly(With):
    def stored(self, cache, layer, k, v):
        keys, _ = cache.append(layer, k, v)
        return keys, keys


class Swapped(With):
    def stored(self, cache, layer, k, v):
        return cache.append(layer, k, v)[::-1]


class Unmasked(With):
    def attend(self, q, k, v):
        return attention(q, k, v)


class NoOffset(With):
    def attend(self, q, k, v):
        mask = torch.ones(q.size(-2), k.size(-2), dtype=torch.bool).tril()
        return attention(q, k, v, mask)


class HeadsNotMerged(With):
    def merge_heads(self, x):
        return x.reshape(x.size(0), x.size(2), -1)


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (ResultIgnored, "Each portion attends to itself alone"),
        (LayerZero, "whose layer 0 is filled, the output"),
        (KeysOnly, "the output is"),
        (Swapped, "the output is"),
        (Unmasked, "without a cache, the output"),
        (NoOffset, "\\(4, 1, 1, 1\\).*the output is"),
        (HeadsNotMerged, "without a cache, the output"),
    ],
)
def test_wrong_attention(cls, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_cached_attention(cls, GrowingCache)


class NoCacheReturned(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        return logits, None


class AlwaysACache(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        return super().forward(input_ids, past_kv, True)


class OneTooFar(DecoderOnlyTransformer):
    def embed(self, input_ids, start=0):
        return super().embed(input_ids, start + (start > 0))


class CacheNotHandedOn(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        past_kv = past_kv or (self.new_cache(1) if use_cache else None)
        x = self.embed(input_ids, past_kv.length if past_kv else 0)
        if past_kv:
            past_kv.lengths[0] += input_ids.size(1)
        for layer in self.layers:
            x = layer(x)
        return self.output_projection(self.norm(x)), past_kv


class LayerNotNumbered(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        past_kv = past_kv or (GrowingCache(self, 1) if use_cache else None)
        x = self.embed(input_ids, past_kv.length if past_kv else 0)
        for layer in self.layers:
            x = layer(x, past_kv)
        return self.output_projection(self.norm(x)), past_kv


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (cache_bugs.NoPositionOffset, "starts at position 0 again"),
        (cache_bugs.NoMaskOffsetModel, "Identical to `no_mask_offset`"),
        (cache_bugs.PromptDropped, "Identical to `prompt_dropped`"),
        (cache_bugs.WholeSequenceAgain, "Identical to `whole_text_again`"),
        (NoCacheReturned, "returned no cache although use_cache=True"),
        (AlwaysACache, "returned a cache although use_cache=False"),
        (OneTooFar, "In portions of \\(7, 1.*differs from position"),
        (CacheNotHandedOn, "Each portion sees itself alone"),
        (LayerNotNumbered, "output of layer 2 is the first that is off"),
    ],
)
def test_wrong_model(cls, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_cached_model(cls)


def loop(feed, keep=True):
    def answer(model, ids, new, use_cache, past_kv=None, stop_token=None, **sampling):
        text = ids
        for _ in range(new):
            logits, found = model(ids, past_kv=past_kv, use_cache=use_cache)
            past_kv = found if keep else None
            token = next_token(logits[:, -1], **sampling)
            text = torch.cat([text, token[:, None]], dim=1)
            yield token
            ids = feed(text, token[:, None], use_cache)

    return answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (loop(lambda text, token, cached: token), "use_cache=False the model was run on \\[5, 1"),
        (loop(lambda text, token, cached: text[:, -2:]), "run on \\[5, 2, 2"),
        (loop(lambda text, token, cached: token if cached else text, keep=False), "a greedy token"),
        (
            loop(lambda text, token, cached: token.flip(0) if cached else text),
            "use_cache=True, a greedy token",
        ),
        (
            loop(lambda text, token, cached: text[:, :1] if cached else text),
            "use_cache=True, a greedy token",
        ),
    ],
)
def test_wrong_loop(answer, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_decode_loop(answer)


def test_a_loop_that_feeds_everything_again_is_told_what_it_fed():
    with pytest.raises(AssertionError, match="run on \\[5, 6, 7\\] tokens, expected \\[5, 1, 1"):
        checks.check_decode_loop(loop(lambda text, token, cached: text))


def test_a_model_that_returns_its_logits_alone():
    class LogitsAlone(DecoderOnlyTransformer):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)[0]

    with pytest.raises(AssertionError, match="returns two things"):
        checks.check_cached_model(LogitsAlone)


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
        (OneQueryOnly, "in chunks: RuntimeError: The size of tensor"),
        (ReturnsNothing, "wrong without its cache"),
        (WrongScale, "wrong without its cache"),
    ],
)
def test_a_wrong_cure_of_attention(attention_class, words):
    model = type("Cured1", (WithAttention,), {"attention_class": attention_class})
    with pytest.raises(AssertionError, match=f"Cured1 is still ill.*{words}"):
        checks.check_cured(model)


class TupleCache:
    """Patient 2 of notebook 04, with `keep` still to be written."""

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
        (OnlyTheNewest, "one by one: differs from position 7"),
        (StoresTwice, "Identical to `appended_twice`"),
        (ValuesNotStored, "Identical to `values_not_cached`"),
        (ReturnsTheNew, "one by one: RuntimeError|one by one: differs from position 6"),
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
        (KeptForever, "one by one: differs from position 0"),
        (KeptPerBatchSize, "Identical to `leaks_into_the_next`"),
        (Emptied, "Identical to `one_cache_per_model`"),
        (OneRow, "in a batch: "),
        (NoCache, "No cache comes back.*one by one: differs from position 6"),
        (TheClass, "at once: "),
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


def test_right_answers_pass():
    checks.check_cache(GrowingCache)
    checks.check_preallocated(PreallocatedCache)
    checks.check_cached_attention(MultiHeadAttention, PreallocatedCache)
    checks.check_cached_model(DecoderOnlyTransformer)
    checks.check_decode_loop(decode_loop)
    checks.check_reorder(PreallocatedCache)
