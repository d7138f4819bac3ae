"""Wrong caches: new tokens get the wrong positions (notebook 05)."""

from ..transformer import DecoderOnlyTransformer
from .entry import SOLUTION, TEACHING, CacheBug, bug

BUGS: list[CacheBug] = []


@bug(
    BUGS,
    "positions_restart",
    "every cached call counts positions from 0",
    "each decoded token takes itself for the first of the text",
    "the positions of new tokens start at past_kv.length",
    "Dive into Deep Learning, predict_step; " + SOLUTION,
)
class NoPositionOffset(DecoderOnlyTransformer):
    def embed(self, input_ids, start=0):
        return super().embed(input_ids, 0)


@bug(
    BUGS,
    "position_one_too_far",
    "new tokens get positions that are one too high",
    "one position is left out between the cached tokens and the new ones",
    "the position of the first new token is past_kv.length, not one more",
)
class PositionOneTooFar(DecoderOnlyTransformer):
    def embed(self, input_ids, start=0):
        room = self.max_seq_len - input_ids.size(1)
        return super().embed(input_ids, min(start + 1, room) if start else 0)


@bug(
    BUGS,
    "position_leaks",
    "the next position is kept in the model, and an uncached call starts there too",
    "the model is right until it is used without a cache after a cached call",
    "the position belongs to the cache, not to the model",
    TEACHING,
)
class PositionLeaks(DecoderOnlyTransformer):
    position = 0

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if use_cache:
            logits, past_kv = super().forward(input_ids, past_kv, use_cache)
            self.position = past_kv.length
            return logits, past_kv
        self.check_input(input_ids, past_kv, use_cache)
        room = self.max_seq_len - input_ids.size(1)
        x = self.embed(input_ids, min(self.position, room))
        for layer in self.layers:
            x = layer(x)
        return self.output_projection(self.norm(x)), None
