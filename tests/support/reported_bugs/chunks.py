"""Wrong with chunks: several tokens at once on a filled cache, or one where several came before."""

import torch

from course_utils.attention import MultiHeadAttention
from course_utils.transformer import DecoderOnlyTransformer

from .entry import reported
from .parts import Counted, PreallocatedCache
from .uses import script


@reported("chunk_offset_twice", script(4, 3), script(4, 1, 1))
class ChunkOffsetTwice(DecoderOnlyTransformer):
    """A chunk's positions start at the cached tokens plus those already fed: the same ones again.

    Reported: chunked prefill, mlx-node/mlx-node#33; a like mistake in skyzh/tiny-llm#46.
    """

    def embed(self, input_ids, start=0):
        if input_ids.size(1) > 1:
            start = min(2 * start, self.max_seq_len - input_ids.size(1))
        return super().embed(input_ids, start)


@reported("no_position_for_one_token", script(4, 1), script(4, 3))
class NoPositionForOneToken(DecoderOnlyTransformer):
    """A single token on a filled cache gets no position at all.

    Reported: GPT-2 in a library for laptops, ml-explore/mlx-lm#93.
    """

    def embed(self, input_ids, start=0):
        if start and input_ids.size(1) == 1:
            return self.dropout(self.token_embedding(input_ids))
        return super().embed(input_ids, start)


@reported("chunk_blind_to_the_cache", script(4, 3), script(4, 1, 1))
class ChunkBlindToTheCache(MultiHeadAttention):
    """The mask of a chunk knows nothing of the cache: its tokens see each other only.

    Reported: several models of a library in Rust, huggingface/candle#3743.
    """

    def attend(self, q, k, v):
        num_queries = q.size(2)
        if num_queries > 1:
            k, v = k[:, :, -num_queries:], v[:, :, -num_queries:]
        return super().attend(q, k, v)


@reported("chunk_after_single_tokens", script(4, 1, 3), script(4, 3, 1, 1))
class ChunkAfterSingleTokens(Counted):
    """Single tokens go into a buffer with spare room; a later chunk goes after the spare room.

    Reported: a second prompt on a rotating cache, ml-explore/mlx-examples#1000.
    """

    def append(self, layer, k, v):
        stored = self.positions[layer]
        single = self.__dict__.setdefault("single", set())
        if stored and k.size(2) == 1:
            single.add(layer)
        elif layer in single:
            self.insert_zeros(layer, -self.keys[layer].size(2) % 8)
        return super().append(layer, k, v)


@reported("lone_first_token_not_stored", script(1, 1), script(2, 1))
class LoneFirstTokenNotStored(PreallocatedCache):
    """A first call of one token is taken for decoding on an empty cache, and stores nothing.

    Reported: decoding kernels on an empty cache, flashinfer-ai/flashinfer#363.
    """

    def append(self, layer, k, v):
        lone = self.lengths[layer] == 0 and k.size(2) == 1
        found = super().append(layer, k, v)
        if not lone:
            return found
        for part in found:
            part.zero_()
        return k, v


@reported("first_of_a_chunk_stored", script(4, 3, 1), script(4, 3))
class FirstOfAChunkStored(PreallocatedCache):
    """Of a chunk on a filled cache only the first token is stored.

    Reported: a write that ignores the number of tokens, 1bit-MONSTER/1bit-MONSTER#686.
    """

    def append(self, layer, k, v):
        start = self.lengths[layer]
        parts = super().append(layer, k, v)
        found = [part.clone() for part in parts]
        if start:
            for part in parts:
                part[:, :, start + 1 :] = 0
        return found


@reported("chunk_shares_one_position", script(4, 3), script(4, 1, 1))
class ChunkSharesOnePosition(DecoderOnlyTransformer):
    """All tokens of a chunk on a filled cache get the position of its first.

    Reported: images in a draft model's cache, ggml-org/llama.cpp#27408.
    """

    def embed(self, input_ids, start=0):
        if not start:
            return super().embed(input_ids, start)
        positions = torch.full_like(input_ids, start)
        return self.dropout(self.token_embedding(input_ids) + self.pos_embedding(positions))


@reported("chunk_that_fills_a_block", script(60, 4, 1), script(60, 3, 2), room=320)
class ChunkThatFillsABlock(PreallocatedCache):
    """A chunk that fills its last block of 64 exactly leaves no room for its last token.

    Reported: chunked prefill, NVIDIA/Megatron-LM#3819.
    """

    def append(self, layer, k, v):
        start = self.lengths[layer]
        found = super().append(layer, k, v)
        if start and k.size(2) > 1 and self.lengths[layer] % 64 == 0:
            copies = [part.clone() for part in found]
            for part in found:
                part[:, :, -1] = 0
            return copies
        return found


@reported("chunk_that_begins_a_block", script(64, 4, 1), script(64, 1, 3), room=320)
class ChunkThatBeginsABlock(PreallocatedCache):
    """A chunk that begins with a new block of 64 loses its first token.

    Reported: cut chunks, Integral2u/SharpMind#57.
    """

    def append(self, layer, k, v):
        start = self.lengths[layer]
        found = super().append(layer, k, v)
        if start and k.size(2) > 1 and start % 64 == 0:
            copies = [part.clone() for part in found]
            for part in found:
                part[:, :, start] = 0
            return copies
        return found
