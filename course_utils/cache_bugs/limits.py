"""Wrong caches: right until the room ends, or on one device only (notebook 05)."""

import torch

from ..kv_cache import GrowingCache, PreallocatedCache
from ..transformer import DecoderOnlyTransformer
from .entry import CacheBug, bug
from .models import WithCache

BUGS: list[CacheBug] = []


class Sliding(DecoderOnlyTransformer):
    """Past its end, the model goes on at its last position instead of raising an error."""

    def check_input(self, input_ids, past_kv, use_cache):
        pass

    def embed(self, input_ids, start=0):
        positions = torch.arange(start, start + input_ids.size(1), device=input_ids.device)
        positions = positions.clamp(max=self.max_seq_len - 1)
        return self.token_embedding(input_ids) + self.pos_embedding(positions)

    def new_cache(self, batch_size):
        return GrowingCache(self, batch_size)


@bug(
    BUGS,
    "last_position_repeats",
    "past max_seq_len every token gets the last position",
    "right up to the end; past it numbers that mean nothing, and no error",
    "compare past_kv.length + new tokens with max_seq_len before any work",
)
class LastPositionRepeats(Sliding):
    pass


@bug(
    BUGS,
    "positions_wrap_round",
    "past max_seq_len positions start at 0 again",
    "right up to the end; past it numbers that mean nothing, and no error",
    "compare past_kv.length + new tokens with max_seq_len before any work",
)
class PositionsWrapRound(Sliding):
    def embed(self, input_ids, start=0):
        positions = torch.arange(start, start + input_ids.size(1), device=input_ids.device)
        positions = positions % self.max_seq_len
        return self.token_embedding(input_ids) + self.pos_embedding(positions)


class OneDevice(PreallocatedCache):
    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        shape = self.keys.shape
        self.keys, self.values = (torch.empty(shape, dtype=model.dtype) for _ in range(2))


@bug(
    BUGS,
    "cache_on_the_cpu",
    "the cache is allocated without saying on which device",
    "right on the CPU; an error as soon as the model is on a GPU",
    "torch.empty(..., dtype=model.dtype, device=model.device)",
)
class OneDeviceModel(WithCache):
    cache_class = OneDevice
