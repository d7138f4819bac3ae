"""What the check cell of copy on write calls: room is made, or nothing happens (chapter 10)."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from hypothesis import strategies as st

from ....checks.common import is_stub, raised, verdict
from ....checks.judged import judge
from ..block_tables import BlockPool, BlockTables, OutOfBlocks, Table

MOST_TABLES = 4


@dataclass(frozen=True)
class Uses:
    """Blocks, their size, and what is done with tables: a word, the table's number, a number."""

    num_blocks: int
    block_size: int
    steps: tuple[tuple[str, int, int], ...]

    def __str__(self) -> str:
        return f"{self.num_blocks} block{'s' * (self.num_blocks > 1)} of {self.block_size}:"


WORDS = ("reserve", "reserve", "write", "fork", "truncate")
FIRST = [
    Uses(6, 4, (("write", 0, 6), ("reserve", 0, 3))),
    Uses(6, 4, tuple(("reserve", 0, count) for count in (6, 6, 8, 9))),
    Uses(6, 4, (("write", 0, 6), ("fork", 0, 0), ("reserve", 1, 1), ("reserve", 0, 1))),
    Uses(2, 4, (("write", 0, 4), ("reserve", 0, 7))),
    Uses(2, 4, (("write", 0, 6), ("fork", 0, 0), ("reserve", 1, 3))),
    Uses(6, 4, (("reserve", 0, 8), ("fork", 0, 0), ("reserve", 1, 8))),
]


@st.composite
def uses(draw: st.DrawFn) -> Uses:
    num_blocks, block_size = draw(st.integers(1, 7)), draw(st.integers(1, 4))
    number, count = st.integers(0, MOST_TABLES - 1), st.integers(1, 3 * block_size)
    step = st.tuples(st.sampled_from(WORDS), number, count)
    return Uses(num_blocks, block_size, tuple(draw(st.lists(step, min_size=1, max_size=10))))


@dataclass
class Plan:
    """What a table has before it reserves, and what is due."""

    blocks: list[int]
    length: int
    shared: list[int]  # places in the table whose blocks are to be written, and held by others
    missing: int
    free: list[int]
    others: list[list[int]]

    @property
    def needed(self) -> int:
        return len(self.shared) + self.missing


class _Played:
    """Tables of a class, and what has to be true of them after each step."""

    def __init__(self, tables_class: type[BlockTables], uses: Uses):
        copied: list[tuple[int, int]] = []

        class Recorded(tables_class):
            def copy(self, old: int, new: int) -> None:
                copied.append((old, new))

        self.all, self.copied = Recorded(uses.num_blocks, uses.block_size), copied
        self.tables = [Table()]
        self.story: list[str] = []

    def step(self, word: str, number: int, count: int) -> None:
        number %= len(self.tables)
        table, name = self.tables[number], _name(number)
        if word == "fork" and len(self.tables) < MOST_TABLES:
            self.story.append(f"{_name(len(self.tables))} is a fork of {name}")
            self.tables.append(self.all.fork(table))
        elif word == "truncate":
            length = count % (table.length + 1)
            self.story.append(f"{name} is cut to {length}")
            self.all.truncate(table, length)
        elif word in ("reserve", "write"):
            plan = self.plan(table, count)
            self.story.append(
                f"{name}, of length {plan.length} in blocks {plan.blocks}, reserves {count}"
            )
            if self.reserve(table, count, plan) and word == "write":
                self.story[-1] = f"{name} writes {count}"
                table.length += count

    def plan(self, table: Table, count: int) -> Plan:
        end = self.all.blocks_for(table.length + count)
        blocks = list(table.blocks)
        written = range(table.length // self.all.block_size, min(end, len(blocks)))
        holders = Counter(block for one in self.tables for block in one.blocks)
        return Plan(
            blocks,
            table.length,
            [i for i in written if holders[blocks[i]] > 1],
            max(0, end - len(blocks)),
            sorted(self.all.pool.free),
            [list(other.blocks) for other in self.tables if other is not table],
        )

    def reserve(self, table: Table, count: int, plan: Plan) -> bool:
        """Whether there was room. Raises AssertionError if something else happens than is due."""
        before, self.copied[:] = self.books(), []
        enough = plan.needed <= len(plan.free)
        try:
            self.all.reserve(table, count)
        except Exception as error:
            if is_stub(error):
                raise
            if isinstance(error, OutOfBlocks) and enough:
                self.complain(
                    f"raised OutOfBlocks. {plan.needed} blocks are needed, and the "
                    f"{len(plan.free)} that are free are enough"
                )
            if enough or not isinstance(error, OutOfBlocks):
                self.complain(raised(error) + "; expected OutOfBlocks" * (not enough))
            if self.books() != before:
                self.complain(
                    "raised OutOfBlocks, as it must, but something had changed before. Count what "
                    "is needed first, then take it: the caller frees a block and tries again"
                )
            return False
        if not enough:
            self.complain(
                f"expected OutOfBlocks. {len(plan.shared)} to be copied (others hold a block that "
                f"is written), {plan.missing} missing, and {len(plan.free)} free"
            )
        self.check_table(table, count, plan)
        self.check_books(table, plan)
        return True

    def check_table(self, table: Table, count: int, plan: Plan) -> None:
        """Raise AssertionError unless the table has the blocks that it should."""
        if table.length != plan.length:
            self.complain(
                f"changed the length to {table.length}. It makes room; the length changes when "
                "positions are written"
            )
        found, number = table.blocks, len(plan.blocks) + plan.missing
        if len(found) != number:
            self.complain(
                f"has {len(found)} blocks, expected {number}. Blocks that are missing for "
                f"{plan.length} + {count} positions are allocated, and only those"
            )
        for i, old in enumerate(plan.blocks):
            if i in plan.shared and found[i] == old:
                self.complain(
                    f"block {old} would be written, and another table reads it. It needs a block "
                    "of its own: copy on write"
                )
            if i not in plan.shared and found[i] != old:
                alone = not any(old in blocks for blocks in plan.others)
                why = "nobody else holds it" if alone else "it is not written now: it stays shared"
                self.complain(f"block {old} was replaced by {found[i]}, but {why}")
        new = [found[i] for i in plan.shared] + found[len(plan.blocks) :]
        if set(new) - set(plan.free) or len(set(new)) < len(new):
            self.complain(f"the new blocks are {new}: expected such as were free, each once")

    def check_books(self, table: Table, plan: Plan) -> None:
        """Raise AssertionError unless what is shared was copied, and the pool knows who holds."""
        expected = [(plan.blocks[i], table.blocks[i]) for i in plan.shared]
        if sorted(self.copied) != expected and sorted(self.copied) != sorted(expected):
            self.complain(
                f"copied (from, to) {self.copied}, expected {expected}: what others hold and this "
                "table writes, and only that"
            )
        holders = Counter(block for one in self.tables for block in one.blocks)
        _, references, free = self.books()
        for block, count in enumerate(references):
            if count == holders[block]:
                continue
            why = ""
            if block in (old for old, _ in expected) and count == holders[block] + 1:
                why = ": this table has a copy now. Release the old one"
            self.complain(
                f"block {block} counts {count} holders, and {holders[block]} tables have it{why}"
            )
        if free != [block for block, count in enumerate(references) if count == 0]:
            self.complain(f"references is {references}, and free is {free}")

    def books(self) -> tuple:
        """All that is known of tables and blocks."""
        pool = self.all.pool
        references = [pool.references[block] for block in range(len(pool.references))]
        tables = [(list(table.blocks), table.length) for table in self.tables]
        return tables, references, sorted(pool.free)

    def complain(self, what: str) -> NoReturn:
        raise AssertionError(f"{'; '.join(self.story)}: {what}")


def _name(number: int) -> str:
    return chr(ord("A") + number)


def _playing(tables_class: type[BlockTables]) -> Callable[[Uses], None]:
    def answer(uses: Uses) -> None:
        played = _Played(tables_class, uses)
        for step in uses.steps:
            played.step(*step)

    return answer


def _judge(tables_class: type[BlockTables]) -> None:
    judge(_playing(tables_class), lambda uses: None, uses(), first=FIRST, number=250)


@verdict
def check_reserve(tables_class: type[BlockTables]) -> str:
    """Chapter 10, exercise 3. Returns a verdict; raises AssertionError on wrong bookkeeping."""
    try:
        _judge(tables_class)
    except AssertionError:
        _judge(type("WithAnotherPool", (tables_class,), {"pool_class": BlockPool}))
        raise AssertionError(
            "reserve is right, with the course's BlockPool. With yours something goes wrong: "
            "make exercise 2 pass first."
        ) from None
    return "reserve is right: room is made, what is shared is copied first, or nothing happens."
