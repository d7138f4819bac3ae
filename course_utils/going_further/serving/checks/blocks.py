"""What the check cell of the allocator calls: no block lost, none given twice (chapter 10)."""

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from ....checks.common import is_stub, raised, verdict
from ....checks.judged import judge
from ..block_tables import OutOfBlocks


@dataclass(frozen=True)
class Steps:
    """What is asked of a pool, one after the other: a method's name, and the block it is given."""

    num_blocks: int
    steps: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return f"A BlockPool({self.num_blocks}):"


@st.composite
def uses(draw: st.DrawFn) -> Steps:
    num_blocks = draw(st.integers(1, 4))
    method = st.sampled_from(("allocate", "share", "release"))
    steps = st.lists(st.tuples(method, st.integers(0, num_blocks - 1)), min_size=1, max_size=14)
    return Steps(num_blocks, tuple(draw(steps)))


ALL_THREE = [("allocate", 0)] * 3
FIRST = [
    Steps(3, (*ALL_THREE, ("allocate", 0))),
    Steps(3, (*ALL_THREE, ("share", 1), ("release", 1), ("release", 1), ("release", 1))),
    Steps(3, (*ALL_THREE, ("release", 1), ("share", 1), ("allocate", 0))),
]


class _Played:
    """A pool and a model beside it: the number of holders of each block."""

    def __init__(self, pool_class: type, num_blocks: int):
        try:
            self.pool, self.untouched = pool_class(num_blocks), pool_class(num_blocks)
        except Exception as error:
            raise AssertionError(f"cannot be made: {raised(error)}") from error
        self.holders = [0] * num_blocks
        self.story: list[str] = []

    def step(self, method: str, block: int) -> None:
        """Call a method of the pool. Raises AssertionError if it does something else than due."""
        taken, free = method == "allocate", self.free()
        self.story.append("allocate()" if taken else f"{method}({block})")
        error, why = (
            (ValueError, "for a block that is free")
            if not taken
            else (
                OutOfBlocks,
                "when no block is free",
            )
        )
        must_raise = not free if taken else self.holders[block] == 0
        try:
            found = getattr(self.pool, method)(*(() if taken else (block,)))
        except Exception as wrong:
            if is_stub(wrong):
                raise
            if not must_raise:
                self.complain(raised(wrong) + (f", and free were {free}" if taken else ""))
            if not isinstance(wrong, error):
                self.complain(f"{raised(wrong)}; expected {error.__name__} {why}")
        else:
            if must_raise:
                self.complain(f"returned {found!r}, expected {error.__name__} {why}")
            self.follow(method, block, found)
        self.compare(method, block, must_raise)

    def follow(self, method: str, block: int, found: object) -> None:
        """The model does the same, if the result is right."""
        if method == "allocate":
            if not isinstance(found, int) or found not in self.free():
                self.complain(f"returned {found!r}, expected a free block, one of {self.free()}")
            self.story[-1] += f" → {found}"
            self.holders[found] = 1
        elif method == "share":
            if found != block:
                self.complain(f"returned {found!r}: it must return the block, {block}")
            self.holders[block] += 1
        else:
            self.holders[block] -= 1

    def free(self) -> list[int]:
        return [block for block, holders in enumerate(self.holders) if holders == 0]

    def compare(self, method: str, block: int, refused: bool) -> None:
        """Raise AssertionError unless the pool's books are the model's, and the other pool's new.

        `references` may be any mapping from blocks, and `free` any collection.
        """
        number = len(self.holders)
        try:
            references = [self.pool.references[i] for i in range(number)]
            free = sorted(self.pool.free)
            others = [self.untouched.references[i] for i in range(number)]
        except (AttributeError, LookupError, TypeError) as error:
            self.complain(f"then `references` and `free` cannot be read: {raised(error)}")
        if others != [0] * number or len(self.untouched.free) != number:
            self.complain("Two pools keep the same books: this changed another one, too")
        if references != self.holders:
            why = {
                "allocate": "a block that was just taken has one holder",
                "share": f"there is one holder more of block {block}",
                "release": f"there is one holder less of block {block}",
            }[method]
            why = "a call that is refused changes nothing" if refused else why
            self.complain(f"references is {references}, expected {self.holders}: {why}")
        if free != self.free():
            why = {
                "allocate": "what is allocated is no longer free",
                "share": "it takes no other block",
                "release": "the last holder let go of it, so it is free, once",
            }[method]
            if method == "release" and self.holders[block]:
                why = "it has another holder, and is not free"
            why = "a call that is refused changes nothing" if refused else why
            self.complain(f"free is {free}, expected {self.free()} in any order: {why}")

    def complain(self, what: str) -> None:
        raise AssertionError(f"{', '.join(self.story)}: {what}")


def _playing(pool_class: type) -> Callable[[Steps], None]:
    def answer(steps: Steps) -> None:
        played = _Played(pool_class, steps.num_blocks)
        for method, block in steps.steps:
            played.step(method, block)

    return answer


@verdict
def check_block_pool(pool_class: type) -> str:
    """Chapter 10, exercise 2. Returns a verdict; raises AssertionError on a wrong allocator."""
    judge(_playing(pool_class), lambda steps: None, uses(), first=FIRST, number=200)
    return "BlockPool is right: no block is lost, none is given out twice."
