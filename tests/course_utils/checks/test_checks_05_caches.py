"""Wrong cures of patients 2 and 3 of notebook 05: each fails, with a message about its fault."""

import copy
import functools

import pytest
import torch

from course_utils import checks
from course_utils.attention import MultiHeadAttention
from course_utils.cache_bugs import WithAttention, WithCache
from course_utils.kv_cache import GrowingCache, PreallocatedCache
from course_utils.transformer import DecoderOnlyTransformer

pytestmark = pytest.mark.authors


def model_with(cache_class):
    return type("Cured2", (WithCache,), {"cache_class": cache_class})


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


class ValuesFromKeys(TupleCache):
    def keep(self, layer, k, v, keys, values):
        self.stored[layer] = keys, keys
        return keys, values


class NewValuesFromK(TupleCache):
    def append(self, layer, k, v):
        return super().append(layer, k, v if self.stored[layer] is None else k)

    def keep(self, layer, k, v, keys, values):
        self.stored[layer] = keys, values
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


class Joining(TupleCache):
    """Joins old and new as an argument says, and then keeps what it has."""

    def append(self, layer, k, v):
        self.length += k.size(2) if layer == 0 else 0
        if (old := self.stored[layer]) is not None:
            k, v = self.join(old[0], k), self.join(old[1], v)
        self.stored[layer] = k, v
        return k, v


def joining(join):
    return type("CuredCache2", (Joining,), {"join": staticmethod(join)})


def keeping(keep):
    return type("CuredCache2", (TupleCache,), {"keep": keep})


class Counting(TupleCache):
    """Counts positions as an argument says."""

    def append(self, layer, k, v):
        self.length = self.count(self.length, layer, k)
        if (old := self.stored[layer]) is not None:
            k, v = torch.cat([old[0], k], 2), torch.cat([old[1], v], 2)
        self.stored[layer] = k, v
        return k, v


def counting(count):
    return type("CuredCache2", (Counting,), {"count": staticmethod(count)})


class Exchanged(TupleCache):
    def keep(self, layer, k, v, keys, values):
        self.stored[layer] = keys, values
        return values, keys


class InFloat32(TupleCache):
    def keep(self, layer, k, v, keys, values):
        self.stored[layer] = keys.float(), values.float()
        return keys, values


class OnTheCpu(TupleCache):
    def keep(self, layer, k, v, keys, values):
        self.stored[layer] = keys.cpu(), values.cpu()
        return keys, values


class OnlyKeys(TupleCache):
    def keep(self, layer, k, v, keys, values):
        self.stored[layer] = keys, values
        return keys


class OneStore(TupleCache):
    """All layers have one place."""

    def keep(self, layer, k, v, keys, values):
        self.stored = [(keys, values)] * len(self.stored)
        return keys, values


class SinglesOnly(TupleCache):
    def keep(self, layer, k, v, keys, values):
        if k.size(2) == 1 or self.stored[layer] is None:
            self.stored[layer] = keys, values
        return keys, values


class OfAll(TupleCache):
    """What is stored belongs to the class: two readers share it."""

    kept = {}

    def append(self, layer, k, v):
        if layer == 0 and self.length == 0:
            self.kept.clear()
        self.length += k.size(2) if layer == 0 else 0
        if layer in self.kept:
            k, v = (torch.cat(x, 2) for x in zip(self.kept[layer], (k, v), strict=True))
        self.kept[layer] = k, v
        return k, v


class Forgetful(TupleCache):
    def append(self, layer, k, v):
        return torch.cat([self.keys[layer], k], 2), torch.cat([self.values[layer], v], 2)


class RoomFor48(TupleCache):
    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        shape = (2, model.num_layers, batch_size, model.num_heads, 48, model.d_head)
        self.both = torch.zeros(shape, dtype=model.dtype, device=model.device)
        self.ends = [0] * model.num_layers

    def append(self, layer, k, v):
        start, end = self.ends[layer], self.ends[layer] + k.size(2)
        self.length, self.ends[layer] = end, end
        self.both[0, layer, :, :, start:end] = k
        self.both[1, layer, :, :, start:end] = v
        return self.both[0, layer, :, :, :end], self.both[1, layer, :, :, :end]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("cache_class", "words"),
    [
        (AsItWas, "keys of positions .0, 1, 3, 4.; expected .0, 1, 2, 3, 4.*Identical to `stale`"),
        (OnlyTheNewest, "3 tokens, 1 at a time from an empty cache: wrong from position 2 on"),
        (StoresTwice, "keys of positions .0, 1, 0, 1, 2.|Identical to `appended_twice`"),
        (ValuesNotStored, "other numbers than the values.*Identical to `values_not_cached`"),
        (ValuesFromKeys, "returns the keys of positions .0, 1. where the values should be"),
        (NewValuesFromK, "returns the keys of positions .2. where the values should be"),
        (ReturnsTheNew, "keys of positions .2.; expected .0, 1, 2."),
        (
            KeepsWithoutReturn,
            "`append` returns nothing: it must end in `return ...`, with all keys and all values.$",
        ),
        (OnlyKeys, "`append` returns .1, 3, 2, 4.; expected two tensors"),
        (CountsPerLayer, "After an append of 2 positions, length is 6; expected 2"),
        (Exchanged, "`append` returns the values where the keys should be"),
        (InFloat32, "dtype|in bfloat16"),
        (OnTheCpu, "On another device: a cached call mixes devices"),
        (OneStore, "in layer 1, `append` returns the keys of positions"),
        (SinglesOnly, "in chunks of 1, 2, 1: wrong from position 3"),
        (OfAll, "A: 1 token; B: 1 token of text 1; A: 1 token: wrong from position 1"),
        (
            Forgetful,
            "positions to an empty cache it raised AttributeError at .* attribute 'keys'.$",
        ),
        (RoomFor48, "wrong from|RuntimeError"),
        (joining(lambda old, new: torch.cat([new, old], 2)), "positions .2, 0, 1.; expected .0, 1"),
        (
            joining(lambda old, new: torch.cat([old, new], 1)),
            "In an append of 1 position to 2 it raised",
        ),
        (
            joining(lambda old, new: torch.cat([old, new], 2)[:, :, -40:]),
            "prefill 40, then 1 token",
        ),
        (joining(lambda old, new: torch.cat([old, new], 2)[:, :, :50]), "prefill 50, then 1 token"),
        (joining(lambda old, new: old + new), "2 and 1 positions, .*other numbers than the keys"),
        (counting(lambda length, layer, k: length), "length is 0; expected 2.*`positions_restart`"),
        (
            counting(lambda length, layer, k: k.size(2)),
            "After appends of 2 and 1 positions, length is 1; expected 3",
        ),
        (counting(lambda length, layer, k: length + (layer == 0)), "length is 1; expected 2"),
        (
            counting(lambda length, layer, k: length + k.size(0) * k.size(2) * (layer == 0)),
            "2 rows",
        ),
        (
            counting(lambda length, layer, k: length + k.size(2) * (layer == 1)),
            "a model of one lay",
        ),
    ],
)
def test_a_wrong_cure_of_a_cache(cache_class, words):
    with pytest.raises(AssertionError, match=f"(?s)Cured2 is still ill.\\s.*({words})"):
        checks.check_cured(model_with(cache_class))


class Chunks(TupleCache):
    """Keeps what came as it came, and joins it when it is asked for."""

    def append(self, layer, k, v):
        self.length += k.shape[2] if layer == 0 else 0
        self.stored[layer] = [*(self.stored[layer] or []), (k, v)]
        return tuple(torch.cat(part, dim=-2) for part in zip(*self.stored[layer], strict=True))


class OneTensor(TupleCache):
    def append(self, layer, k, v):
        new = torch.stack([k, v])
        old = new[:, :, :, :0] if self.stored[layer] is None else self.stored[layer]
        self.stored[layer] = torch.cat([old, new], dim=3)
        self.length = self.stored[0].size(3)
        return tuple(self.stored[layer])


class Inside(TupleCache):
    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        self.inner = PreallocatedCache(model, batch_size)

    def append(self, layer, k, v):
        self.length += k.size(2) if layer == 0 else 0
        return self.inner.append(layer, k, v)


class Detached(TupleCache):
    def keep(self, layer, k, v, keys, values):
        self.stored[layer] = keys.detach(), values.detach()
        return keys, values


@pytest.mark.sampled(2)
@pytest.mark.parametrize("cache_class", [Right, Chunks, OneTensor, Inside, Detached])
def test_right_cures_of_a_cache(cache_class):
    assert "Cured2 is healthy" in checks.check_cured(model_with(cache_class))


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


class NewIfFilled(KeptPerBatchSize):
    """Two caches that are begun before a token goes in are one."""

    def new_cache(self, batch_size):
        cache = super().new_cache(batch_size)
        if cache.length:
            cache = self.cache = GrowingCache(self, batch_size)
        return cache


class FourInTurn(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        self.made = getattr(self, "made", 0) + 1
        if not hasattr(self, "places"):
            self.places = [GrowingCache(self, batch_size) for _ in range(4)]
        self.places[self.made % 4].__init__(self, batch_size)
        return self.places[self.made % 4]


class EverySecond(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        self.made = getattr(self, "made", 0) + 1
        if self.made % 2 or self.cache.batch_size != batch_size:
            self.cache = GrowingCache(self, batch_size)
        return self.cache


class Remembered(DecoderOnlyTransformer):
    @functools.lru_cache  # noqa: B019
    def new_cache(self, batch_size):
        return GrowingCache(self, batch_size)


class NoBatch(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        return GrowingCache(self)


TWICE = "`new_cache` returned one and the same cache twice"


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("model_class", "words"),
    [
        (
            KeptForever,
            f"{TWICE}.*\\sa new cache; 1 token; a new cache; 1 token: wrong from position 0",
        ),
        (KeptPerBatchSize, f"{TWICE}.*Identical to `leaks_into_the_next`"),
        (
            Emptied,
            f"{TWICE}.*\\sA: a new cache; B: a new cache; A: 1 token; B: 1 token of text 1; A:",
        ),
        (NewIfFilled, f"{TWICE}.* back to 0; B: a new cache"),
        (EverySecond, TWICE),
        (Remembered, TWICE),
        (FourInTurn, "E: a new cache"),
        (OneRow, "`new_cache.2.` returns a cache with batch_size 1"),
        (NoBatch, "In `new_cache.2.` it raised TypeError at `.*'batch_size'.$"),
        (NoCache, "`new_cache` returns nothing: it must end in `return ...`.$"),
        (TheClass, "`new_cache` returns the class GrowingCache"),
    ],
)
def test_a_wrong_cure_of_a_model(model_class, words):
    with pytest.raises(
        AssertionError, match=f"(?s){model_class.__name__} is still ill.\\s.*{words}"
    ):
        checks.check_cured(model_class)


class New(KeptPerBatchSize):
    def new_cache(self, batch_size):
        return GrowingCache(self, batch_size)


class NewAndKept(KeptPerBatchSize):
    def new_cache(self, batch_size):
        self.cache = PreallocatedCache(self, batch_size)
        return self.cache


class DeletedBefore(KeptPerBatchSize):
    def new_cache(self, batch_size):
        if hasattr(self, "cache"):
            del self.cache
        return super().new_cache(batch_size)


class Copied(KeptPerBatchSize):
    def new_cache(self, batch_size):
        return copy.deepcopy(super().new_cache(batch_size))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("model_class", [New, NewAndKept, DeletedBefore, Copied])
def test_right_cures_of_a_model(model_class):
    assert "is healthy" in checks.check_cured(model_class)


class Renamed(DecoderOnlyTransformer):
    pass


class HealthyAgain(KeptPerBatchSize):
    new_cache = DecoderOnlyTransformer.new_cache


class HealthyAttention(MultiHeadAttention):
    pass


class HealthyCache(GrowingCache):
    pass


@pytest.mark.parametrize(
    "model_class",
    [
        DecoderOnlyTransformer,
        Renamed,
        HealthyAgain,
        type("Cured1", (WithAttention,), {"attention_class": HealthyAttention}),
        model_with(HealthyCache),
        model_with(PreallocatedCache),
    ],
)
def test_the_healthy_model_is_no_cure(model_class):
    with pytest.raises(AssertionError, match="to be cured, not replaced"):
        checks.check_cured(model_class)
