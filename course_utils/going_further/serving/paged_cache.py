"""A key/value cache in blocks, and the model that uses it (chapter 10).

    PagedCache     `BlockTables` with the keys and values
    PagedRows      some sequences of it side by side: what a forward pass takes as its `past_kv`
    PagedTransformer    the course's model over such a cache

Source: Kwon et al., "Efficient Memory Management for Large Language Model Serving with
PagedAttention", 2023, section 4. Their kernel reads each block where it lies; here the blocks of a
batch are gathered into one tensor first, which costs a copy and keeps the attention as it was.

Shapes: B sequences side by side, Q new positions of each, K positions of the longest, H num_heads,
d d_head.
"""

from typing import Any

import torch
from torch import Tensor

from ...attention import MultiHeadAttention, attention
from ...transformer import DecoderOnlyTransformer
from .block_tables import BlockTables, Table


class PagedCache(BlockTables):
    """Keys and values in blocks, (layer, num_blocks, block_size, H, d), and whose they are."""

    def __init__(self, model: DecoderOnlyTransformer, num_blocks: int, block_size: int):
        super().__init__(num_blocks, block_size)
        shape = (model.num_layers, num_blocks, block_size, model.num_heads, model.d_head)
        # Zeros, not `empty`: what is masked has weight 0, and 0 times NaN would be NaN.
        self.keys = torch.zeros(shape, dtype=model.dtype, device=model.device)
        self.values = torch.zeros(shape, dtype=model.dtype, device=model.device)

    def copy(self, old: int, new: int) -> None:
        self.keys[:, new] = self.keys[:, old]
        self.values[:, new] = self.values[:, old]

    @property
    def block_bytes(self) -> int:
        """Bytes of a block, keys and values of all layers."""
        return self.keys[:, 0].nbytes + self.values[:, 0].nbytes


class PagedRows:
    """Some sequences of a paged cache side by side, of different lengths, as one `past_kv`."""

    def __init__(self, cache: PagedCache, tables: list[Table]):
        self.cache = cache
        self.tables = tables

    @property
    def batch_size(self) -> int:
        return len(self.tables)

    @property
    def length(self) -> int:
        """Positions of the longest sequence."""
        return max(table.length for table in self.tables)

    def prepare(self, count: int) -> None:
        """Make ready for `count` new positions of each sequence: their positions, what they see.

        Raises OutOfBlocks.
        """
        cache, device = self.cache, self.cache.keys.device
        size, most = cache.block_size, cache.blocks_for(self.length + count)
        self.places = torch.tensor([cache.claim(t, count) for t in self.tables], device=device)
        starts = torch.tensor([table.length for table in self.tables], device=device)
        self.positions = starts[:, None] + torch.arange(count, device=device)  # (B, Q)
        blocks = [table.blocks[:most] + [0] * (most - len(table.blocks)) for table in self.tables]
        first = torch.tensor(blocks, device=device)[:, :, None] * size
        inside = torch.arange(size, device=device)
        self.gather = (first + inside).flatten(1)[:, : self.length + count]  # (B, K)
        keys = torch.arange(self.length + count, device=device)
        self.mask = (keys <= self.positions[:, :, None])[:, None]  # (B, 1, Q, K)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v (B, H, Q, d) of the new positions; return those of all, (B, H, K, d)."""
        found = []
        for stored, new in ((self.cache.keys, k), (self.cache.values, v)):
            places = stored[layer].flatten(0, 1)
            places[self.places] = new.transpose(1, 2)
            found.append(places[self.gather].transpose(1, 2))
        if layer == len(self.cache.keys) - 1:
            for table in self.tables:
                table.length += k.size(2)
        return found[0], found[1]

    def reorder(self, rows: Tensor) -> None:
        """Make row i a fork of what row `rows[i]` was; there are then len(rows) rows."""
        forks = [self.cache.fork(self.tables[row]) for row in rows.tolist()]
        for table in self.tables:
            self.cache.drop(table)
        self.tables = forks

    def truncate(self, length: int) -> None:
        """Forget all positions from `length` on. Raises ValueError if a row has fewer."""
        for table in self.tables:
            self.cache.truncate(table, length)

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks that these sequences hold; one that is shared counts once."""
        held = {block for table in self.tables for block in table.blocks}
        return len(held) * self.cache.block_bytes


class PagedAttention(MultiHeadAttention):
    def forward(self, x: Tensor, cache: Any = None, layer: int = 0) -> Tensor:
        if not isinstance(cache, PagedRows):
            return super().forward(x, cache, layer)
        q, k, v = (self.split_heads(W(x)) for W in (self.W_q, self.W_k, self.W_v))
        k, v = cache.append(layer, k, v)
        return self.W_o(self.merge_heads(attention(q, k, v, cache.mask)))


class PagedTransformer(DecoderOnlyTransformer):
    """The course's model over a paged cache. By default a cache of its own, for kv_evaluate."""

    block_size = 16
    spare_rows = 4

    def __init__(self, vocab_size: int, d_model: int, *args: Any, num_heads: int = 1, **kw: Any):
        super().__init__(vocab_size, d_model, *args, num_heads=num_heads, **kw)
        for layer in self.layers:
            layer.attention = PagedAttention(d_model, num_heads)

    def new_cache(self, batch_size: int) -> PagedRows:
        """Empty tables over blocks of their own, enough for `batch_size` full sequences.

        And for `spare_rows` more: `reorder` can make more rows than there were.
        """
        blocks = -(-self.max_seq_len // self.block_size)
        cache = PagedCache(self, (batch_size + self.spare_rows) * blocks, self.block_size)
        return PagedRows(cache, [Table() for _ in range(batch_size)])

    def forward(
        self, input_ids: Tensor, past_kv: Any = None, use_cache: bool = False
    ) -> tuple[Tensor, Any]:
        """As `DecoderOnlyTransformer.forward`; with `PagedRows`, rows may have different lengths.

        Raises OutOfBlocks if the pool cannot take the new positions.
        """
        self.check_input(input_ids, past_kv, use_cache)
        if use_cache and past_kv is None:
            past_kv = self.new_cache(input_ids.size(0))
        if not isinstance(past_kv, PagedRows):
            return super().forward(input_ids, past_kv, use_cache)
        past_kv.prepare(input_ids.size(1))
        x = self.token_embedding(input_ids) + self.pos_embedding(past_kv.positions)
        x = self.dropout(x)
        for i, layer in enumerate(self.layers):
            x = layer(x, past_kv, i)
        return self.output_projection(self.norm(x)), past_kv
