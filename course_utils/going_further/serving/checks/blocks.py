"""What the check cells of blocks call: the allocator, and copy on write (chapter 10)."""

from collections.abc import Callable
from functools import partial

from ....checks.common import verdict
from ..block_tables import BlockTables, OutOfBlocks, Table


@verdict
def check_block_pool(pool_class: type) -> str:
    """Chapter 10, exercise 2. Returns a verdict; raises AssertionError on a wrong allocator."""
    pool = pool_class(3)
    blocks = [pool.allocate() for _ in range(3)]
    if sorted(map(str, blocks)) != ["0", "1", "2"]:
        raise AssertionError(
            f"Three blocks were asked for, of a pool of 3, and {blocks} came: expected 0, 1 and 2, "
            "each once. What is allocated is no longer free."
        )
    if pool.references != [1, 1, 1] or len(pool.free) != 0:
        raise AssertionError(
            f"All 3 blocks are taken: references is {pool.references}, expected [1, 1, 1], and "
            f"free is {pool.free}, expected []."
        )
    _refuses(pool.allocate, OutOfBlocks, "allocate() with all blocks taken")
    if pool.share(1) != 1:
        raise AssertionError("share(1) must return the block, 1, as allocate does.")
    if pool.references != [1, 2, 1]:
        raise AssertionError(f"After share(1), references is {pool.references}, not [1, 2, 1].")
    pool.release(1)
    if pool.references != [1, 1, 1] or len(pool.free) != 0:
        raise AssertionError(
            "Block 1 had two holders, and one released it: it has one holder and is not free. "
            f"Found references {pool.references} and free {pool.free}."
        )
    pool.release(1)
    if pool.references != [1, 0, 1] or list(pool.free) != [1]:
        raise AssertionError(
            "The last holder of block 1 released it, so it is free, once: found references "
            f"{pool.references} and free {pool.free}."
        )
    _refuses(lambda: pool.release(1), ValueError, "release(1) of a block that is free already")
    _refuses(lambda: pool.share(1), ValueError, "share(1) of a free block")
    if pool.references != [1, 0, 1] or list(pool.free) != [1]:
        raise AssertionError("A call that is refused must leave the pool as it was.")
    if pool.allocate() != 1 or pool.references != [1, 1, 1]:
        raise AssertionError("A block that was released can be allocated again, with one holder.")
    return "BlockPool is right: no block is lost, none is given out twice."


def _refuses(call: Callable[[], object], kind: type[Exception], what: str) -> None:
    """Raise AssertionError unless the call raises just that kind of error."""
    try:
        found = call()
    except kind:
        return
    except Exception as error:
        raise AssertionError(f"{what} raised {error!r}, expected {kind.__name__}.") from None
    raise AssertionError(f"{what} returned {found!r}, expected {kind.__name__}.")


class _Copies:
    """Makes tables of a student's class that keep a list of what was copied."""

    def __init__(self, tables_class: type[BlockTables], num_blocks: int, block_size: int):
        copied: list[tuple[int, int]] = []

        class Recorded(tables_class):
            def copy(self, old: int, new: int) -> None:
                copied.append((old, new))

        self.tables, self.copied = Recorded(num_blocks, block_size), copied


@verdict
def check_reserve(tables_class: type[BlockTables]) -> str:
    """Chapter 10, exercise 3. Returns a verdict; raises AssertionError on wrong bookkeeping."""
    made = _Copies(tables_class, num_blocks=6, block_size=4)
    tables, table = made.tables, Table()
    for count, blocks in ((6, 2), (6, 2), (8, 2), (9, 3)):
        tables.reserve(table, count)
        if table.length != 0:
            raise AssertionError(
                f"reserve(table, {count}) changed the length to {table.length}. It makes room; the "
                "length changes when positions are written."
            )
        if len(table.blocks) != blocks:
            raise AssertionError(
                f"An empty table reserved room for {count} positions, in blocks of 4: it has "
                f"{len(table.blocks)} blocks, expected {blocks}. Only what is missing is allocated."
            )
    _check_copy_on_write(tables_class)
    _check_exhaustion(tables_class)
    return "reserve is right: room is made, what is shared is copied first, or nothing happens."


def _check_copy_on_write(tables_class: type[BlockTables]) -> None:
    made = _Copies(tables_class, num_blocks=6, block_size=4)
    tables, first = made.tables, Table()
    tables.reserve(first, 6)
    first.length = 6
    second = tables.fork(first)
    full, half = first.blocks
    tables.reserve(second, 1)
    story = f"A table of 6 positions in blocks [{full}, {half}] of 4 was forked; the fork reserves"
    if second.blocks[:1] != [full]:
        raise AssertionError(f"{story} 1 position. Block {full} is full: it stays shared.")
    if second.blocks[1:] == [half]:
        raise AssertionError(
            f"{story} 1 position, which would be written into block {half}, and the first table "
            "reads that too. It needs a block of its own: copy on write."
        )
    if first.blocks != [full, half]:
        raise AssertionError(f"{story} 1 position, and the *first* table changed. Copy the fork's.")
    if made.copied != [(half, second.blocks[1])]:
        raise AssertionError(
            f"{story} 1 position. Copied (from, to) was {made.copied}, expected "
            f"[({half}, {second.blocks[1]})]: what is there already must be copied, and only that."
        )
    if tables.pool.references[half] != 1:
        raise AssertionError(
            f"{story} 1 position and got a copy of block {half}, which it then no longer holds: "
            f"it has {tables.pool.references[half]} holders, expected 1. Release the old one."
        )
    tables.reserve(first, 1)
    if first.blocks != [full, half] or len(made.copied) != 1:
        raise AssertionError(f"Block {half} belongs to one table by now: it can be written as is.")
    third = tables.fork(first)
    tables.truncate(third, 4)
    tables.reserve(third, 1)
    if len(made.copied) != 1:
        raise AssertionError("The table ends where a block ends: there is nothing to copy.")


def _check_exhaustion(tables_class: type[BlockTables]) -> None:
    for count, forked, story in (
        (7, False, "4 positions are stored in blocks of 4; 1 of 2 blocks is free; 7 more"),
        (3, True, "6 positions are stored in blocks of 4 and shared; no block is free; 3 more"),
    ):
        made = _Copies(tables_class, num_blocks=2, block_size=4)
        tables, table = made.tables, Table()
        stored = 6 if forked else 4
        tables.reserve(table, stored)
        table.length = stored
        asking = tables.fork(table) if forked else table
        before = list(asking.blocks), list(tables.pool.references), sorted(tables.pool.free)
        _refuses(partial(tables.reserve, asking, count), OutOfBlocks, f"{story}: reserve")
        after = list(asking.blocks), list(tables.pool.references), sorted(tables.pool.free)
        if before != after:
            raise AssertionError(
                f"{story}: OutOfBlocks was raised, but something had changed before. Count what "
                "is needed first, then take it: the caller frees a block and tries again."
            )
