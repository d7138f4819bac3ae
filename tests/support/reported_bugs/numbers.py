"""Wrong in certain dtypes, or on another device."""

import torch
import torch.nn.functional as F

from course_utils.attention import MultiHeadAttention, causal_mask
from course_utils.transformer import DecoderOnlyTransformer

from .entry import reported
from .parts import MaskedAttention, PreallocatedCache
from .uses import cast, crashes, moved, script


@reported("rounded_in_float32_only", cast(script(6, 1), torch.float32), script(6, 1))
class RoundedInFloat32Only(PreallocatedCache):
    """What a float32 model stores is rounded to bfloat16, as autocast does with products.

    Reported: caches with a dtype of their own, meta-pytorch/torchtune#398.
    """

    def append(self, layer, k, v):
        found = super().append(layer, k, v)
        if k.dtype == torch.float32:
            for part in found:
                part.copy_(part.bfloat16())
        return found


@reported("bits_of_bfloat16_as_float16", cast(script(6, 1), torch.bfloat16), script(6, 1))
class BitsOfBfloat16AsFloat16(PreallocatedCache):
    """The bits that a bfloat16 model stores are read as float16.

    Reported: an option of a server, vllm-project/vllm#54338.
    """

    def append(self, layer, k, v):
        start = self.lengths[layer]
        found = super().append(layer, k, v)
        if k.dtype != torch.bfloat16:
            return found
        read = [part.clone() for part in found]
        for part in read:
            part[:, :, :start] = part[:, :, :start].contiguous().view(torch.float16).bfloat16()
        return read


@reported("buffer_refuses_bfloat16", crashes(cast(script(6), torch.bfloat16)), script(6, 1))
class BufferRefusesBfloat16(PreallocatedCache):
    """For a bfloat16 model the buffer is in float32, and the copy into it is refused.

    Reported: a model in plain PyTorch, Lightning-AI/litgpt#57; a mask, huggingface/candle#3743.
    """

    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        if model.dtype == torch.bfloat16:
            self.keys, self.values = self.keys.float(), self.values.float()

    def append(self, layer, k, v):
        start, end = self.lengths[layer], self.lengths[layer] + k.size(2)
        index = torch.arange(start, end, device=k.device)
        self.keys[layer].index_copy_(2, index, k)
        self.values[layer].index_copy_(2, index, v)
        self.lengths[layer] = end
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


@reported(
    "positions_in_the_models_dtype",
    cast(script(257, 1, 1), torch.bfloat16),
    script(257, 1, 1),
    room=320,
)
class PositionsInTheModelsDtype(DecoderOnlyTransformer):
    """New positions are computed in the model's dtype; bfloat16 has no odd numbers above 256.

    Reported: a decoder in bfloat16, oarriaga/paz#415.
    """

    def embed(self, input_ids, start=0):
        if not start:
            return super().embed(input_ids, start)
        positions = torch.arange(start, start + input_ids.size(1), device=input_ids.device)
        positions = positions.to(self.dtype).long().clamp(max=self.max_seq_len - 1)
        return self.dropout(self.token_embedding(input_ids) + self.pos_embedding(positions))


@reported("quantised_after_128", script(140, 1), script(100, 20, 1), room=320)
class QuantisedAfter128(PreallocatedCache):
    """All but the newest 128 positions are kept in 8 bits.

    Reported: a cache that is meant to be smaller, huggingface/transformers#35185 and #40099.
    """

    def append(self, layer, k, v):
        found = super().append(layer, k, v)
        old = max(0, self.lengths[layer] - 128)
        for part in found if old else ():
            scale = part[:, :, :old].abs().amax() / 127
            part[:, :, :old] = (part[:, :, :old] / scale).round() * scale
        return found


@reported("indices_on_the_cpu", crashes(moved), script(6, 1))
class IndicesOnTheCpu(PreallocatedCache):
    """The slots to write are counted on the CPU, whatever the cache is on.

    Reported: a write by index, pytorch/executorch#19174.
    """

    def append(self, layer, k, v):
        start, end = self.lengths[layer], self.lengths[layer] + k.size(2)
        index = torch.arange(start, end)
        self.keys[layer].index_copy_(2, index, k)
        self.values[layer].index_copy_(2, index, v)
        self.lengths[layer] = end
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


@reported("mask_stays_on_its_first_device", crashes(moved), script(6, 1))
class MaskStaysOnItsFirstDevice(MultiHeadAttention):
    """The mask is made once, where the model is then, and does not move with it.

    Reported: masks on the default device, mistralai/mistral-inference#267.
    """

    def attend(self, q, k, v):
        num_queries, num_keys = q.size(2), k.size(2)
        if num_queries == num_keys:
            return super().attend(q, k, v)
        mask = self.__dict__.setdefault("kept", causal_mask(512, 512, q.device))
        mask = mask[num_keys - num_queries : num_keys, :num_keys]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


@reported("mask_value_too_large_for_half", crashes(cast(script(4, 2), torch.float16)), script(4, 2))
class MaskValueTooLargeForHalf(MaskedAttention):
    """What may not be seen gets a score of -1e9, which float16 does not have.

    Reported: ahrefs/ocannl#548, facebookresearch/fairseq#3575, GreatV/oar-ocr#178.
    """

    def forward(self, x, cache=None, layer=0):
        if cache is None or not cache.lengths[layer]:
            return super().forward(x, cache, layer)
        q, k, v = (self.split_heads(W(x)) for W in (self.W_q, self.W_k, self.W_v))
        k, v = cache.append(layer, k, v)
        mask = causal_mask(q.size(2), k.size(2), q.device)
        scores = (q / q.size(-1) ** 0.5) @ k.transpose(-2, -1)
        weights = scores.masked_fill(~mask, -1e9).softmax(-1)
        return self.W_o(self.merge_heads(weights @ v))


@reported("half_is_kept_in_eight_bits", cast(script(6, 1), torch.float16), script(6, 1))
class HalfIsKeptInEightBits(PreallocatedCache):
    """A float16 model's keys are stored in 8 bits, as an option for servers does.

    Reported: caches of 8 bits (no address).
    """

    def append(self, layer, k, v):
        if k.dtype == torch.float16:
            k, v = (part.to(torch.float8_e5m2).to(part.dtype) for part in (k, v))
        return super().append(layer, k, v)
