"""Wrong answers that students write to notebook 04: each fails, with a message about its fault."""

import pytest
import torch

from course_utils import checks
from course_utils.attention import MultiHeadAttention, attention
from course_utils.kv_cache import GrowingCache, PreallocatedCache


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
        (ResultIgnored, "Each chunk attends only to itself"),
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


def test_right_answers_pass():
    checks.check_cache(GrowingCache)
    checks.check_preallocated(PreallocatedCache)
    checks.check_cached_attention(MultiHeadAttention, PreallocatedCache)
