"""Wrong caches: right until a block is full, a buffer grows or the room ends (notebook 05)."""

from ..kv_cache import GrowingCache, PreallocatedCache
from .entry import CacheBug, bug
from .models import CountedCache, WithCache

BUGS: list[CacheBug] = []
BLOCK = 8


class FullBlockLost(CountedCache):
    def append(self, layer, k, v):
        first = self.positions[layer] == 0
        found = super().append(layer, k, v)
        if first and k.size(2) % BLOCK == 0:
            self.keys[layer] = self.keys[layer][:, :, :-BLOCK]
            self.values[layer] = self.values[layer][:, :, :-BLOCK]
        return found


@bug(
    BUGS,
    "full_block_lost",
    "a prefill that fills its last block exactly does not store that block",
    "right for most prompts; after one of 8, 16, 24, ... tokens, the last 8 are forgotten",
    "how many blocks a prompt of exactly 8 tokens needs: round up, do not add one or take one off",
    "tenstorrent/tt-metal#54413",
)
class FullBlockLostModel(WithCache):
    cache_class = FullBlockLost


class GrowsBetweenTokens(GrowingCache):
    """Room for 8 positions, doubled when an append finds it full, and not in the middle of one."""

    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        self.room = [BLOCK] * len(self.keys)

    def append(self, layer, k, v):
        found = super().append(layer, k, v)
        if self.keys[layer].size(2) > self.room[layer]:
            crossed = self.keys[layer].size(2) - k.size(2) < self.room[layer]
            if crossed:
                self.values[layer] = self.values[layer].clone()
                self.values[layer][:, :, self.room[layer] :] = 0
            while self.room[layer] < self.keys[layer].size(2):
                self.room[layer] *= 2
        return found


@bug(
    BUGS,
    "growth_in_a_chunk",
    "a buffer that must grow in the middle of a chunk stores the chunk's beginning only",
    "right for single tokens; a chunk across position 8, 16, 32, ... loses its end",
    "make room for all new tokens first, then write them all",
    "EricLBuehler/mistral.rs#917",
)
class GrowsBetweenTokensModel(WithCache):
    cache_class = GrowsBetweenTokens


class ClampedWrite(PreallocatedCache):
    """Chunks are written in fours, filled up with zeros; a write past the end slides back."""

    def append(self, layer, k, v):
        start, new = self.lengths[layer], k.size(2)
        found = super().append(layer, k, v)
        written = -(-new // 4) * 4
        over = start + written - self.keys.size(3)
        if new > 1 and over > 0:
            found = tuple(stored.clone() for stored in found)
            for stored, part in zip((self.keys, self.values), (k, v), strict=True):
                slid = stored[layer, :, :, max(start - over, 0) :]
                slid[:, :, :new] = part[:, :, : slid.size(2)]
        return found


@bug(
    BUGS,
    "write_slides_back",
    "chunks are written in fours, and a write that would pass the end slides back",
    "right until a chunk comes near the end; then it overwrites what came before it",
    "writes that are clamped, as XLA's dynamic_update_slice is: look at the last positions",
    "tenstorrent/tt-metal#54744",
)
class ClampedWriteModel(WithCache):
    cache_class = ClampedWrite
