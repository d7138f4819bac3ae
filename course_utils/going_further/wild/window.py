"""What chapter 13 builds: a rollback, what a short cache spoils, a cache with a spare.

Shapes: B rows, H heads, T tokens, d numbers per head.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer


def roll_back(kept: Any, length: int) -> None:
    """Forget all tokens from position `length` on.

    `kept.past` is a cache of the library, `kept.length` how many tokens it has seen. Raises
    NotImplementedError for a cache that cannot forget them.
    """
    if length == kept.length:
        return
    try:
        kept.past.crop(length - kept.length)
    except RuntimeError as error:
        raise NotImplementedError(str(error)) from None
    kept.length = length


def wrong_positions(kept: int, window: int, chunks: Sequence[int]) -> list[int]:
    """The positions whose logits are wrong, in a model of one layer, fed in these chunks.

    A token looks at itself and the `window - 1` tokens before it; after each chunk the cache keeps
    the last `kept` tokens.
    """
    wrong, start = [], 0
    for length in chunks:
        oldest = max(start - kept, 0)
        for position in range(start, start + length):
            if max(position - window + 1, 0) < oldest:
                wrong.append(position)
        start += length
    return wrong


class SpareLayer(DynamicLayer):
    """The keys and values of a window, and of `spare` tokens more, so that some can be taken back.

    It is wrong: the last exercise of the chapter mends it.
    """

    is_sliding = True

    def __init__(self, window: int, spare: int):
        super().__init__()
        self.window, self.spare, self.seen = window, spare, 0

    @property
    def held(self) -> int:
        """How many tokens are kept."""
        return self.keys.size(2) if self.is_initialized else 0

    def get_seq_length(self) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys the next call has, and the position of the first."""
        return self.held + query_length, self.seen - self.held

    def update(self, k: Tensor, v: Tensor, *more: Any) -> tuple[Tensor, Tensor]:
        """Take in new keys and values (B, H, T, d); return those that this call may look at."""
        if not self.is_initialized:
            self.lazy_initialization(k, v)
        keys, values = torch.cat([self.keys, k], dim=2), torch.cat([self.values, v], dim=2)
        self.seen += k.size(2)
        room = self.window - 1 + self.spare
        self.keys, self.values = keys[:, :, -room:], values[:, :, -room:]
        return keys, values

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens: -2 forgets two."""
        count = -tokens_to_remove
        if self.seen > self.held and count > self.spare:
            raise NotImplementedError(f"{count} tokens are more than the spare of {self.spare}")
        self.keys = self.keys[:, :, : self.held - count]
        self.values = self.values[:, :, : self.keys.size(2)]
        self.seen -= count


class CuredLayer(SpareLayer):
    """The same, right."""

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens; NotImplementedError if too few for a window would be left."""
        count = -tokens_to_remove
        needed = self.window - 1 if self.seen > self.held else 0
        if self.held - count < needed:
            raise NotImplementedError(f"{count} tokens are more than can be taken back")
        self.keys = self.keys[:, :, : self.held - count]
        self.values = self.values[:, :, : self.keys.size(2)]
        self.seen -= count
