"""Wrong because something is shared: between generations, caches, layers, rows or models."""

import copy

import torch

from course_utils.transformer import DecoderOnlyTransformer

from .entry import reported
from .parts import Counted, PreallocatedCache
from .uses import again, crashes, differs, script, together, uncached_call, words


@reported("reset_leaves_zeros", again(script(5), script(5, seed=1)), script(5, 1))
class ResetLeavesZeros(DecoderOnlyTransformer):
    """A new generation sets the last one's keys and values to zero, but keeps their number.

    Reported: reset in a large library, huggingface/transformers#48509.
    """

    kept = None

    def new_cache(self, batch_size):
        last, self.kept = self.kept, Counted(self, batch_size)
        if last is not None and last.batch_size == batch_size:
            for layer in range(self.num_layers):
                self.kept.insert_zeros(layer, last.length)
        return self.kept


@reported("layers_share_one_buffer", script(4, 1))
class LayersShareOneBuffer(PreallocatedCache):
    """The number of the layer is accepted and ignored: the last one's keys and values are left.

    Reported: a fallback without a dimension for layers, EfficientMoE/MoE-Infinity#195.
    """

    def append(self, layer, k, v):
        start, end = self.lengths[layer], self.lengths[layer] + k.size(2)
        self.keys[0, :, :, start:end], self.values[0, :, :, start:end] = k, v
        self.lengths[layer] = end
        return self.keys[0, :, :, :end].clone(), self.values[0, :, :, :end].clone()


@reported("keys_read_as_values", script(4, 1))
class KeysReadAsValues(PreallocatedCache):
    """The values of earlier positions are read from where the keys are.

    Reported: a path that takes one buffer for both, ikawrakow/ik_llama.cpp#1592.
    """

    def append(self, layer, k, v):
        start = self.lengths[layer]
        keys, _ = super().append(layer, k, v)
        return keys, torch.cat([keys[:, :, :start], v], dim=2)


@reported("pool_of_two", together(3, 4, 5), together(3, 4))
class PoolOfTwo(DecoderOnlyTransformer):
    """The model owns two caches and hands them out in turn, whether or not they are in use.

    Reported: a server's slots, ggml-org/llama.cpp#27148.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.pool = []

    def new_cache(self, batch_size):
        if len(self.pool) == 2:
            cache = self.pool.pop(0)
            same = cache.batch_size == batch_size, cache.keys.dtype == self.dtype
            if all(same) and cache.keys.device == self.device:
                cache.truncate(0)
                self.pool.append(cache)
                return cache
        self.pool.append(super().new_cache(batch_size))
        return self.pool[-1]


@reported("kept_by_rows_and_length", together(4, 4), together(3, 4))
class KeptByRowsAndLength(DecoderOnlyTransformer):
    """Caches are kept for prompts of the same shape, and emptied when the next one begins.

    Reported: one state for all clients of a server, quantumaikr/quant.cpp#49.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.kept = {}

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if use_cache and past_kv is None:
            key = input_ids.shape, self.dtype, self.device
            past_kv = self.kept.setdefault(key, self.new_cache(len(input_ids)))
            past_kv.truncate(0)
        return super().forward(input_ids, past_kv, use_cache)


@reported("uncached_call_empties", script(4, uncached_call, 1), script(4, 1))
class UncachedCallEmpties(DecoderOnlyTransformer):
    """A call without a cache switches caching off, and what was cached is gone.

    Reported: caches that are switched on and off, meta-pytorch/torchtune#1675.
    """

    switched = 0

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            self.switched += 1
        elif past_kv is not None and past_kv.switched != self.switched:
            past_kv.truncate(0)
        logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        if use_cache:
            past_kv.switched = self.switched
        return logits, past_kv


POSITIONS = {}


@torch.no_grad()
def copies_in_turn(model, right):
    """A text with the model, another with a copy of it, and on with the first."""
    other, text = copy.deepcopy(model), words(1, 6)
    _, cache = model(text[:, :5], use_cache=True)
    other(words(1, 3, seed=1), use_cache=True)
    logits, _ = model(text[:, 5:], past_kv=cache, use_cache=True)
    return differs(logits, right(text)[0][:, -1:])


@reported("positions_in_a_global", copies_in_turn, together(3, 4))
class PositionsInAGlobal(DecoderOnlyTransformer):
    """How far each cache is stands in a table outside of it; each model numbers its own caches.

    Reported: tables of positions, abetlen/llama-cpp-python#2180.
    """

    made = 0

    class Numbered(PreallocatedCache):
        @property
        def length(self):
            return POSITIONS[self.number]

        def append(self, layer, k, v):
            if layer == 0:
                POSITIONS[self.number] += k.size(2)
            return super().append(layer, k, v)

        def truncate(self, length):
            super().truncate(length)
            POSITIONS[self.number] = length

    def new_cache(self, batch_size):
        cache = self.Numbered(self, batch_size)
        cache.number, self.made = self.made, self.made + 1
        POSITIONS[cache.number] = 0
        return cache


@reported("fifth_row_over_the_first", script(4, 1, rows=5), script(4, 1, rows=4))
class FifthRowOverTheFirst(PreallocatedCache):
    """From a certain size on, a row's address overflows: the fifth is written over the first.

    Reported: kernels with a cache, Dao-AILab/flash-attention#772.
    """

    def append(self, layer, k, v):
        found = super().append(layer, k, v)
        for part in found:
            part[:1] = part[4:5] if len(part) > 4 else part[:1].clone()
        return found


@reported("set_up_for_two_rows", crashes(script(4, rows=3)), script(4, 1, rows=2))
class SetUpForTwoRows(DecoderOnlyTransformer):
    """The cache is a buffer of the module, made once and for two rows.

    Reported: caches that are set up beforehand, meta-pytorch/torchtune#26 and #1675.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name in ("keys", "values"):
            buffer = getattr(PreallocatedCache(self, 2), name)
            self.register_buffer(name, torch.zeros_like(buffer), persistent=False)

    def new_cache(self, batch_size):
        cache = super().new_cache(batch_size)
        cache.keys = self.keys[:, :batch_size]
        cache.values = self.values[:, :batch_size]
        return cache


@torch.no_grad()
def two_models(model, right):
    """A text with another model of the class, then the same with this one."""
    other, text = copy.deepcopy(model), words(1, 6)
    for weight in other.parameters():
        weight.mul_(0.5)
    other(text[:, :5], use_cache=True)
    _, cache = model(text[:, :5], use_cache=True)
    logits, _ = model(text[:, 5:], past_kv=cache, use_cache=True)
    return differs(logits, right(text)[0][:, -1:])


@reported("last_prompt_on_the_class", two_models, script(4, 1))
class LastPromptOnTheClass(DecoderOnlyTransformer):
    """The last prompt is kept on the class, for the draft model and the large one alike.

    Reported: keys that leave the model out, deeppavlov/AutoIntent#334.
    """

    prompts = {}

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache or past_kv is not None or len(input_ids) > 1:
            return super().forward(input_ids, past_kv, use_cache)
        key = self.dtype, self.pos_embedding.weight.shape, tuple(input_ids[0].tolist())
        if key not in self.prompts:
            self.prompts.clear()
            self.prompts[key] = super().forward(input_ids, past_kv, use_cache)
        return copy.deepcopy(self.prompts[key])
