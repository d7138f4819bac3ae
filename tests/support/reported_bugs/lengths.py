"""Wrong at certain lengths: blocks, growth, powers of two, the end of the room."""

import torch

from course_utils.attention import causal_mask
from course_utils.transformer import DecoderOnlyTransformer

from .entry import reported
from .parts import Counted, GrowingCache, MaskedAttention, PreallocatedCache
from .uses import again, crashes, one_more, script


@reported("odd_block_left_zero", script(70, 1), script(64, 1, 20, 1), room=320)
class OddBlockLeftZero(PreallocatedCache):
    """A prompt's blocks of 32 are shared between two workers; the one left over is not stored.

    Reported: a speech model on an accelerator, tenstorrent/tt-metal#54413.
    """

    def append(self, layer, k, v):
        first = self.lengths[layer] == 0
        found = super().append(layer, k, v)
        blocks = -(-k.size(2) // 32)
        if not first or blocks == 1 or blocks % 2 == 0:
            return found
        for part in found:
            part[:, :, 32 * (blocks - 1) :] = 0
        return k, v


@reported("decoding_never_grows", script(120, *[1] * 12), script(150, 1, 1), room=320)
class DecodingNeverGrows(PreallocatedCache):
    """A chunk makes the buffer grow; a single token past its end is dropped instead.

    Reported: an engine's backend for laptops, sgl-project/sglang#29271.
    """

    capacity = 128

    def append(self, layer, k, v):
        end = self.lengths[layer] + k.size(2)
        while k.size(2) > 1 and self.capacity < end:
            self.capacity *= 2
        if end <= self.capacity:
            return super().append(layer, k, v)
        self.keys[layer, :, :, end - 1] = self.values[layer, :, :, end - 1] = 0
        self.lengths[layer] = end
        held = slice(0, self.capacity)
        return self.keys[layer, :, :, held], self.values[layer, :, :, held]


@reported("growth_loses_the_open_block", script(60, 10), script(60, 4, 64, 3), room=320)
class GrowthLosesTheOpenBlock(PreallocatedCache):
    """The buffer grows by blocks of 64, and only full blocks are copied into the larger one.

    Reported: an engine's growing cache, EricLBuehler/mistral.rs#917 (no details there).
    """

    def append(self, layer, k, v):
        stored = self.lengths[layer]
        if -(-(stored + k.size(2)) // 64) > -(-stored // 64):
            self.keys[layer, :, :, stored // 64 * 64 : stored] = 0
            self.values[layer, :, :, stored // 64 * 64 : stored] = 0
        return super().append(layer, k, v)


@reported("window_by_buffer_width", script(256, 1, 1), script(200, 1, 1), room=320)
class WindowByBufferWidth(Counted):
    """What does not fit the window is measured by the buffer, which is wider than its content.

    Reported: a library of vision models for laptops, Blaizzy/mlx-vlm#2031.
    """

    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        self.window = model.max_seq_len

    def append(self, layer, k, v):
        keys, values = super().append(layer, k, v)
        surplus = -(-keys.size(2) // 256) * 256 - self.window
        if keys.size(2) > 256 and surplus > 0:
            self.keys[layer] = keys[:, :, surplus:]
            self.values[layer] = values[:, :, surplus:]
        return keys, values


@reported("window_rolls_one_early", script(20, 4), script(20, 3))
class WindowRollsOneEarly(PreallocatedCache):
    """The oldest position leaves the window when it is full, not when it is exceeded.

    Reported: sliding windows in a large library, huggingface/transformers#37574.
    """

    def append(self, layer, k, v):
        stored = self.lengths[layer]
        keys, values = super().append(layer, k, v)
        if stored and keys.size(2) == self.keys.size(3):
            return keys[:, :, 1:], values[:, :, 1:]
        return keys, values


@reported("padded_chunk_clamped", script(18, 3), script(12, 3, 1))
class PaddedChunkClamped(PreallocatedCache):
    """A chunk is padded to a width of 8; where that does not fit, the whole write moves forward.

    Reported: prefill on an accelerator, tenstorrent/tt-metal#54744, and JAX's clamped slices.
    """

    def append(self, layer, k, v):
        start, end = self.lengths[layer], self.lengths[layer] + k.size(2)
        start_of_last = self.keys.size(3) - -(-k.size(2) // 8) * 8
        found = super().append(layer, k, v)
        if start and k.size(2) > 1 and start > start_of_last:
            for buffer, new in ((self.keys, k), (self.values, v)):
                buffer[layer, :, :, start_of_last:] = 0
                buffer[layer, :, :, start_of_last : start_of_last + k.size(2)] = new
        self.lengths[layer] = end
        return found


@reported("one_too_many_accepted", one_more, script(20, 4))
class OneTooManyAccepted(DecoderOnlyTransformer):
    """The room is compared with > where >= is meant: one token too many goes in.

    Reported: an engine for CPUs, neuralmagic/deepsparse#1447.
    """

    def check_input(self, input_ids, past_kv, use_cache):
        if past_kv is None or past_kv.length + input_ids.size(1) != self.max_seq_len + 1:
            super().check_input(input_ids, past_kv, use_cache)

    def embed(self, input_ids, start=0):
        positions = torch.arange(start, start + input_ids.size(1), device=input_ids.device)
        positions = positions.clamp(max=self.max_seq_len - 1)
        return self.dropout(self.token_embedding(input_ids) + self.pos_embedding(positions))

    def new_cache(self, batch_size):
        return GrowingCache(self, batch_size)


@reported("last_position_refused", crashes(script(20, 4)), script(20, 3))
class LastPositionRefused(DecoderOnlyTransformer):
    """The check of the room takes the next position for a number of tokens, and is one too strict.

    Reported: an operator for phones, pytorch/executorch#2689.
    """

    def check_input(self, input_ids, past_kv, use_cache):
        super().check_input(input_ids, past_kv, use_cache)
        stored = 0 if past_kv is None else past_kv.length
        if stored and stored + input_ids.size(1) >= self.max_seq_len:
            raise ValueError("The cache is full.")


@reported("decoding_leaves_a_hole", script(5, 1))
class DecodingLeavesAHole(PreallocatedCache):
    """Decoding starts one slot too far: the slot after the prompt is never written, and is read.

    Reported: an engine's paged decoder, microsoft/onnxruntime-genai#2354.
    """

    def append(self, layer, k, v):
        first = self.lengths[layer] == 0
        found = super().append(layer, k, v)
        end = self.lengths[layer]
        if first and end < self.keys.size(3):
            self.keys[layer, :, :, end] = 0
            self.values[layer, :, :, end] = 0
            self.lengths[layer] += 1
        return found


@reported("split_drops_the_odd_key", script(129, 1, 1), script(129, 1), room=320)
class SplitDropsTheOddKey(MaskedAttention):
    """From 129 keys on, two workers get half of them each; of an odd number one is left out.

    Reported: kernels for decoding, tile-ai/TileOPs#101.
    """

    def allowed(self, cache, stored, num_queries, num_keys):
        mask = super().allowed(cache, stored, num_queries, num_keys)
        if num_queries == 1 and num_keys > 128:
            mask = mask & (torch.arange(num_keys) < num_keys // 2 * 2)
        return mask


@reported("bucket_padding_in_sight", script(9, 1), script(8, 1, 1))
class BucketPaddingInSight(Counted):
    """A prompt is padded to a power of two, and decoding looks at the padding.

    Reported: serving on an accelerator, huggingface/optimum-neuron#264.
    """

    def append(self, layer, k, v):
        first = self.positions[layer] == 0
        found = super().append(layer, k, v)
        if first:
            self.insert_zeros(layer, (1 << (k.size(2) - 1).bit_length()) - k.size(2))
        return found


@reported("slot_in_a_byte", script(255, 1, 1), script(200, 50, 1), room=320)
class SlotInAByte(PreallocatedCache):
    """The number of a slot is kept in too few bits, and starts again at 0.

    Reported: a kernel that cuts the number of a block to 16 bits, ROCm/aiter#3062.
    """

    def append(self, layer, k, v):
        start, end = self.lengths[layer], self.lengths[layer] + k.size(2)
        slots = torch.arange(end, device=k.device) % 256
        self.keys[layer, :, :, slots[start:]] = k
        self.values[layer, :, :, slots[start:]] = v
        self.lengths[layer] = end
        return self.keys[layer, :, :, slots], self.values[layer, :, :, slots]


@reported("keys_counted_before_the_chunk", script(30, 6), script(70, 1, 20, 1), room=320)
class KeysCountedBeforeTheChunk(MaskedAttention):
    """Keys are looked at in blocks of 32, as many as there were before the chunk came.

    Reported: a widely used engine in C++, ggml-org/llama.cpp#4113.
    """

    def allowed(self, cache, stored, num_queries, num_keys):
        visible = 32 * (stored // 32 + 1)
        return causal_mask(num_queries, num_keys) & (torch.arange(num_keys) < visible)


@reported("mask_kept_by_keys", again(script(5, 1, 1), script(4, 3)), script(4, 3))
class MaskKeptByKeys(MaskedAttention):
    """Masks are kept for later, by the number of keys alone; the number of queries is forgotten.

    Reported: masks tied to a length, facebookresearch/xformers#66 and #660.
    """

    def allowed(self, cache, stored, num_queries, num_keys):
        kept = self.__dict__.setdefault("kept", {})
        mask = kept.setdefault(num_keys, causal_mask(num_queries, num_keys))
        return mask[-num_queries:]


@reported("open_page_is_nan", script(4, 1), script(4, 4))
class OpenPageIsNan(MaskedAttention):
    """Whole pages of 4 are read; what was never written weighs 0, and 0 times NaN is NaN.

    Reported: kernels, flashinfer-ai/flashinfer#941 and Dao-AILab/flash-attention#1745.
    """

    def forward(self, x, cache=None, layer=0):
        found = super().forward(x, cache, layer)
        unfilled = cache is not None and cache.lengths[layer] % 4
        return found + 0 * torch.nan if unfilled else found
