"""Which blocks of a cache are free, and a table per sequence that says which are its (chapter 10).

    BlockPool      which blocks are free, and how many tables hold each of the others
    BlockTables    sequences as lists of blocks: room, copy on write, forks, rollback, prefixes

Nothing here knows what a block holds: `paged_cache` adds the keys and values.
Source: Kwon et al., "Efficient Memory Management for Large Language Model Serving with
PagedAttention", 2023, section 4.
"""

from dataclasses import dataclass, field

from ...kv_cache import check_rollback


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
