"""A key/value cache in blocks, and a table per sequence that says where they are (chapter 09).

    BlockPool      which blocks are free, and how many tables hold each of the others
    BlockTables    sequences as lists of blocks: room, copy on write, forks, rollback, prefixes
    PagedCache     the same, with the keys and values
    PagedRows      some sequences of it side by side: what a forward pass takes as its `past_kv`

Source: Kwon et al., "Efficient Memory Management for Large Language Model Serving with
PagedAttention", 2023, section 4. Their kernel reads each block where it lies; here the blocks of a
batch are gathered into one tensor first, which costs a copy and keeps the attention as it was.

Shapes: B sequences side by side, Q new positions of each, K positions of the longest, H num_heads,
d d_head.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..attention import MultiHeadAttention, attention
from ..kv_cache import check_rollback
from ..transformer import DecoderOnlyTransformer


class OutOfBlocks(RuntimeError):
    """No block is free. Somebody has to give some back."""


class BlockPool:
    """Which blocks are free, and how many tables hold each of the others."""

    def __init__(self, num_blocks: int):
        self.references = [0] * num_blocks
        self.free = list(reversed(range(num_blocks)))

    def allocate(self) -> int:
        """A free block, which now has one holder. Raises OutOfBlocks if there is none."""
        if not self.free:
            raise OutOfBlocks(f"All {len(self.references)} blocks are in use: release some first.")
        block = self.free.pop()
        self.references[block] = 1
        return block

    def share(self, block: int) -> int:
        """The same block, with one holder more. Raises ValueError if it is free."""
        if self.references[block] == 0:
            raise ValueError(f"Block {block} is free: nobody holds it, so it cannot be shared.")
        self.references[block] += 1
        return block

    def release(self, block: int) -> None:
        """One holder less; without any, the block is free. Raises ValueError if it is already."""
        if self.references[block] == 0:
            raise ValueError(f"Block {block} is free already: it was released once too often.")
        self.references[block] -= 1
        if self.references[block] == 0:
            self.free.append(block)


@dataclass
class Table:
    """A sequence: position i is in place i % block_size of `blocks[i // block_size]`."""

    blocks: list[int] = field(default_factory=list)
    length: int = 0


class BlockTables:
    """Sequences as tables of blocks from one pool. Holds no keys and no values."""

    pool_class = BlockPool

    def __init__(self, num_blocks: int, block_size: int):
        self.pool = self.pool_class(num_blocks)
        self.block_size = block_size
        self.prefixes: dict[tuple[int, ...], int] = {}  # tokens up to the end of a full block
        self.known_for: dict[int, tuple[int, ...]] = {}  # the same, by block

    @property
    def used(self) -> int:
        """Blocks that are not free."""
        return len(self.pool.references) - len(self.pool.free)

    def blocks_for(self, positions: int) -> int:
        """How many blocks that many positions take."""
        return -(-positions // self.block_size)

    def reserve(self, table: Table, count: int) -> None:
        """Make the places of the next `count` positions exist, and the table's own.

        A block that others hold too is copied before it is written (copy on write). Places that
        are there already stay. Raises OutOfBlocks, and leaves everything as it was.
        """
        end = self.blocks_for(table.length + count)
        written = range(table.length // self.block_size, min(end, len(table.blocks)))
        shared = [i for i in written if self.pool.references[table.blocks[i]] > 1]
        missing = max(0, end - len(table.blocks))
        if len(shared) + missing > len(self.pool.free):
            raise OutOfBlocks(
                f"{count} more positions take {len(shared) + missing} blocks, and of "
                f"{len(self.pool.references)} blocks {len(self.pool.free)} are free."
            )
        for i in shared:
            old, table.blocks[i] = table.blocks[i], self.pool.allocate()
            self.copy(old, table.blocks[i])
            self.release(old)
        table.blocks += [self.pool.allocate() for _ in range(missing)]

    def claim(self, table: Table, count: int) -> list[int]:
        """Places of the next `count` positions, which the caller writes: block · size + offset."""
        self.reserve(table, count)
        size = self.block_size
        for block in table.blocks[table.length // size : self.blocks_for(table.length + count)]:
            self.forget(block)
        positions = range(table.length, table.length + count)
        return [table.blocks[i // size] * size + i % size for i in positions]

    def copy(self, old: int, new: int) -> None:
        """Copy what block `old` holds into `new`. Here nothing is held."""

    def fork(self, table: Table) -> Table:
        """A second sequence that begins as this one, in the same blocks."""
        return Table([self.pool.share(block) for block in table.blocks], table.length)

    def truncate(self, table: Table, length: int) -> None:
        """Forget all positions from `length` on, and give back the blocks that held only those.

        Raises ValueError if fewer are stored.
        """
        check_rollback(length, table.length)
        keep = self.blocks_for(length)
        for block in table.blocks[keep:]:
            self.release(block)
        del table.blocks[keep:]
        table.length = length

    def drop(self, table: Table) -> None:
        """The sequence is over: give back all its blocks."""
        self.truncate(table, 0)

    def release(self, block: int) -> None:
        self.pool.release(block)
        if self.pool.references[block] == 0:
            self.forget(block)

    def publish(self, table: Table, tokens: list[int]) -> None:
        """Let later sequences that begin with the same tokens share the table's full blocks."""
        size = self.block_size
        for end in range(size, min(len(tokens), table.length) + 1, size):
            block, prefix = table.blocks[end // size - 1], tuple(tokens[:end])
            if prefix not in self.prefixes and block not in self.known_for:
                self.prefixes[prefix] = block
                self.known_for[block] = prefix

    def adopt(self, tokens: list[int]) -> Table:
        """A table that begins with the blocks which others hold for the same first tokens.

        The last token is never among them: it has to be run, for its logits. Only blocks that are
        held are found; real engines keep free ones, too, until they need the room.
        """
        table = Table()
        for end in range(self.block_size, len(tokens), self.block_size):
            block = self.prefixes.get(tuple(tokens[:end]))
            if block is None:
                break
            table.blocks.append(self.pool.share(block))
            table.length = end
        return table

    def forget(self, block: int) -> None:
        """The block no longer holds what it was published for."""
        prefix = self.known_for.pop(block, None)
        if prefix is not None:
            del self.prefixes[prefix]


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
        """Make ready for `count` new positions of each sequence: where they stand, what they see.

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

    def __init__(self, vocab_size: int, d_model: int, *args: Any, num_heads: int = 1, **kw: Any):
        super().__init__(vocab_size, d_model, *args, num_heads=num_heads, **kw)
        for layer in self.layers:
            layer.attention = PagedAttention(d_model, num_heads)

    def new_cache(self, batch_size: int) -> PagedRows:
        """Empty tables over blocks of their own, enough for `batch_size` full sequences."""
        blocks = -(-self.max_seq_len // self.block_size)
        cache = PagedCache(self, batch_size * blocks, self.block_size)
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
