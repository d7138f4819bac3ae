"""Wrong caches that students write to notebook 04: each is told what is wrong with it.

Most are the worked answer with one or two lines written otherwise.
"""

import re

import pytest
import torch
from rewritten_answers import refused

from course_utils import checks
from course_utils.attention import MultiHeadAttention
from course_utils.checks.n04_wrong_caches import GROWING
from course_utils.checks.n04_wrong_preallocated import PREALLOCATED
from course_utils.kv_cache import GrowingCache, PreallocatedCache

pytestmark = pytest.mark.authors

KEYS = "self.keys[layer] = torch.cat([self.keys[layer], k], dim=2)"
VALUES = "self.values[layer] = torch.cat([self.values[layer], v], dim=2)"
BOTH = "return self.keys[layer], self.values[layer]"
LENGTH = "self.keys[0].size(2)"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([(BOTH, "return k, v")], "1, 4), expected (1, 3, 3, 4). append returns only the new"),
        ([(KEYS, "self.keys[layer] = k")], "of keys that append returns for layer 0 has shape"),
        ([(KEYS, KEYS + "; k.zero_()")], "k, which was handed to append, is 0"),
        ([("dim=2", "dim=1")], "The positions are dimension 2"),
        ([("torch.cat", "torch.stack")], "torch.stack makes one"),
        ([("[self.keys[layer], k]", "[k, self.keys[layer]]")], "of keys that append returns"),
        ([("self.values[layer], v]", "self.values[layer], k]")], "The keys come back as values"),
        ([(BOTH, "return self.values[layer], self.keys[layer]")], "values are exchanged"),
        ([(BOTH, "return self.keys, self.values")], "is a list, expected a torch.Tensor"),
        ([(BOTH, "return self.keys[layer]")], "append returns a Tensor, and has to return two"),
        ([(BOTH, "")], "append returns nothing"),
        ([("[layer]", "[0]")], "All layers share what belongs to layer 0"),
        ([(KEYS, "if self.keys[layer].size(2): " + KEYS)], "of keys that append returns"),
        (
            [(BOTH, "return self.keys[layer].float(), self.values[layer].float()")],
            "dtype torch.flo",
        ),
        ([(BOTH, "return self.keys[layer].cpu(), self.values[layer]")], "Pass `device=` to"),
        ([("k], dim=2)", "k], dim=2)[:, :, -8:]")], "after 7 positions and 3 more"),
        ([(LENGTH, "self.keys[0].size(1)")], "length is the number of heads"),
        ([(LENGTH, "self.keys[0].shape")], "It is one number"),
        ([(LENGTH, "self.keys[0]")], "length is a tensor of shape (1, 3, 0, 4), expected a number"),
        ([(LENGTH, "sum(k.size(2) for k in self.keys)")], "once for every layer"),
        ([(LENGTH, "self.keys[1].size(2)")], "1 layer, 1 head of d = 1: before the first append"),
        ([("@property\n    def length", "def length")], "`@property` goes above it"),
        ([("dtype=model.dtype, ", "")], "in torch.bfloat16"),
        ([(", device=model.device", "")], "fails on another device"),
        ([("self.batch_size = batch_size", "self.batch_size = 1")], "batch_size is 1, expected 2"),
        ([("sum(t.nbytes", "len(t.nbytes")], "nbytes raised TypeError"),
    ],
)
def test_wrong_cache(changes, words):
    assert words in refused("growing_cache", *changes)


START = "start, end = self.lengths[layer], self.lengths[layer] + k.size(2)"
VIEWS = "return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]"
COUNT = "self.lengths[layer] = end"
WRITTEN = "self.keys[layer, :, :, start:end] = k"
CUT = "k, v = k[:, :, : end - start], v[:, :, : end - start]"


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([(VIEWS, "return self.keys[layer], self.values[layer]")], "returns the whole room"),
        ([(VIEWS, VIEWS.replace(":end", "start:end"))], "returns only the new positions"),
        ([(COUNT, "self.lengths[0] = end")], "layer 1 has shape (1, 3, 1, 4), expected (1, 3, 3"),
        ([(COUNT, "self.lengths[0] = end")], "length of layer 0 is set for all layers"),
        ([(START, START.replace("lengths[layer]", "lengths[0]"))], "Layer 0 has appended before"),
        ([(COUNT, "pass")], "length is 0, expected 2. The new length is forgotten"),
        ([(COUNT, "self.lengths[layer] += end")], "length is 5, expected 3. `end` is added"),
        ([(COUNT, "self.lengths[layer] = end + k.size(2)")], "positions are counted twice"),
        ([(COUNT, "self.lengths[layer] += 1")], "length is 1, expected 2. The length grows by 1"),
        ([(COUNT, "self.length = end")], "no setter. The length is read from self.lengths"),
        ([(COUNT, "self.lengths = end")], "self.lengths is a list"),
        ([("start:end] = k", ": k.size(2)] = k")], "holds NaN (not a number)"),
        ([("start:end] = v", "start:end] = k")], "The keys come back as values, too"),
        ([("start:end] = ", ":] = ")], "[layer, :, :, start:end] has as many places"),
        ([("start:end] = ", "start:] = ")], "[layer, :, :, start:end] has as many places"),
        ([("start:end] = ", ":end] = ")], "written over all that is there"),
        ([(WRITTEN, WRITTEN.replace(":, :, start", ":, start"))], "A colon is missing"),
        ([(":, :, start", ":, start")], "A colon is missing: the positions are dimension 2"),
        ([(":, :, :end", ":, :end")], "A colon is missing: the positions are dimension 2"),
        ([("layer, :, :, start", ":, :, :, start")], "The layer is missing"),
        ([("layer, :, :, start", ":, :, start")], "The layer is missing"),
        ([("layer, :, :, ", ":, :, :, ")], "The layer is missing"),
        ([("layer, :, :, :end", ":, :, :, :end")], "append returns all layers"),
        ([(START, "start = self.lengths[layer]; end = k.size(2)")], "`end` is start + k.size(2)"),
        ([("k.size(2)", "k.size(0)")], "k.size(0) is the number of rows"),
        ([("k.size(2)", "k.size(3)")], "k.size(3) is d"),
        (
            [(WRITTEN, f"end = min(end, self.keys.size(3)); {CUT}; {WRITTEN}")],
            "after 7 positions, 3 more are taken without an error",
        ),
        ([("k.size(2)", "k.size(1)")], "k.size(1) is the number of heads"),
        ([("self.values[layer, :, :, start:end] = v", "")], "v is not stored: NaN is a place"),
        ([(VIEWS, VIEWS.replace(":end]", ":end].clone()"))], "so they were copied"),
        ([(VIEWS, VIEWS + ".contiguous()")], "so they were copied"),
        ([("model.max_seq_len", "(model.max_seq_len + 1)")], "nbytes is"),
        ([("dtype=model.dtype, ", "")], "in torch.float64"),
    ],
)
def test_wrong_preallocated_cache(changes, words):
    assert words in refused("preallocated_cache", *changes)


def test_a_growing_cache_is_not_preallocated():
    with pytest.raises(AssertionError, match="It grows, and copies everything"):
        checks.check_preallocated(GrowingCache)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("cls", "advice"), GROWING + PREALLOCATED)
def test_each_mistake_in_a_cache_has_a_name(cls, advice):
    check = checks.check_cache if issubclass(cls, GrowingCache) else checks.check_preallocated
    check = checks.check_preallocated if cls is GrowingCache else check
    with pytest.raises(AssertionError, match=re.escape(advice)):
        check(cls)


class Written(PreallocatedCache):
    """Without a list of lengths to set: the layers count by their own tensors."""

    def append(self, layer, k, v):
        old = self.lengths[layer]
        places = torch.arange(old, old + k.size(2), device=k.device)
        self.keys[layer].index_copy_(2, places, k)
        self.values[layer].index_copy_(2, places, v)
        self.lengths = [*self.lengths[:layer], old + k.size(2), *self.lengths[layer + 1 :]]
        return [x[layer].narrow(2, 0, old + k.size(2)) for x in (self.keys, self.values)]


class Doubling(GrowingCache):
    """Takes twice the room when it is full, and says what of it is used."""

    nbytes = property(lambda self: 2 * self.length * self.keys[0][:, :, 0].nbytes * self.layers)

    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        self.layers, self.used = model.num_layers, [0] * model.num_layers
        self.batch_size = batch_size
        room = batch_size, model.num_heads, 1, model.d_head
        self.keys, self.values = (
            [torch.zeros(room, dtype=model.dtype, device=model.device) for _ in self.used]
            for _ in range(2)
        )

    @property
    def length(self):
        return self.used[-1]

    def append(self, layer, k, v):
        end = self.used[layer] + k.size(2)
        for kind, new in ((self.keys, k), (self.values, v)):
            while kind[layer].size(2) < end:
                kind[layer] = torch.cat([kind[layer], torch.zeros_like(kind[layer])], dim=2)
            kind[layer][:, :, self.used[layer] : end] = new
        self.used[layer] = end
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]


class Stacked(GrowingCache):
    """Keys and values side by side in one tensor, positions first."""

    def append(self, layer, k, v):
        old = torch.stack([self.keys[layer], self.values[layer]]).movedim(3, 0)
        new = torch.stack([k, v]).movedim(3, 0)
        self.keys[layer], self.values[layer] = torch.cat([old, new]).movedim(0, 3)
        return self.keys[layer], self.values[layer]


class OneByOne(GrowingCache):
    def append(self, layer, k, v):
        for at in range(k.size(2)):
            self.keys[layer] = torch.cat([self.keys[layer], k[:, :, at : at + 1]], dim=2)
            self.values[layer] = torch.cat([self.values[layer], v[:, :, at : at + 1]], dim=2)
        return self.keys[layer], self.values[layer]


@pytest.mark.parametrize("cls", [GrowingCache, Doubling, Stacked, OneByOne])
def test_right_caches_pass(cls):
    checks.check_cache(cls)
    checks.check_cached_attention(MultiHeadAttention, cls)


@pytest.mark.parametrize("cls", [PreallocatedCache, Written])
def test_right_preallocated_caches_pass(cls):
    checks.check_preallocated(cls)
