"""What the check cells of chapter 09 call, as `course_utils.checks` does for the core."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .. import checks
from ..checks import ask, verdict
from .paged_cache import BlockTables, OutOfBlocks, Table
from .serving import Request, Schedule

PASSES = checks.PASSES


def _names(requests: object, known: list[Request]) -> str:
    """Requests as letters: `known` are A, B, ..."""
    if not isinstance(requests, list):
        return f"a {type(requests).__name__}"
    letters = {id(request): chr(ord("A") + i) for i, request in enumerate(known)}
    return "[" + ", ".join(letters.get(id(request), "?") for request in requests) + "]"


@verdict
def check_continuous(continuous: Schedule) -> str:
    """Chapter 09, exercise 1. Returns a verdict; raises AssertionError on a wrong schedule."""
    for done, num_waiting, max_rows in (
        ("yny", 3, 3),
        ("nnn", 2, 3),
        ("", 4, 2),
        ("nyn", 1, 4),
        ("yy", 0, 2),
        ("ny", 5, 4),
    ):
        known = [Request([1], 2, tokens=[0] * (2 if d == "y" else 1)) for d in done]
        known += [Request([1], 2) for _ in range(num_waiting)]
        running, waiting = known[: len(done)], known[len(done) :]
        expected = [r for r in running if not r.done], []
        expected = expected[0], waiting[: max_rows - len(expected[0])]
        given_waiting, given_running = list(waiting), list(running)
        found = continuous(given_waiting, given_running, max_rows)
        case = (
            f"Running {_names(running, known)}, of which "
            f"{_names([r for r in running if r.done], known)} are done; waiting "
            f"{_names(waiting, known)}; {max_rows} rows. "
        )
        if not isinstance(found, tuple) or len(found) != 2:
            raise AssertionError("Return two lists: who stays, and who joins.")
        if given_waiting != waiting or given_running != running:
            raise AssertionError(case + "The lists that came in were changed: return new ones.")
        for what, mine, right in zip(("stays", "joins"), found, expected, strict=True):
            if not isinstance(mine, list) or [*map(id, mine)] != [*map(id, right)]:
                raise AssertionError(
                    f"{case}Who {what}: expected {_names(right, known)}, found "
                    f"{_names(mine, known)}. {_why(what, mine, running, waiting)}"
                )
    return "continuous is right: who is done leaves at once, and who came first joins first."


def _why(what: str, found: object, running: list[Request], waiting: list[Request]) -> str:
    if what == "stays":
        return "Who is done leaves, and who is not stays, in the same order."
    if isinstance(found, list) and not found and waiting:
        return "There is a free row, and nobody has to wait for the others to be done."
    return "As many as there are rows that nobody who stays takes, from the head of the queue."


@verdict
def check_block_pool(pool_class: type) -> str:
    """Chapter 09, exercise 2. Returns a verdict; raises AssertionError on a wrong allocator."""
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
    """Chapter 09, exercise 3. Returns a verdict; raises AssertionError on wrong bookkeeping."""
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


@verdict
def check_accept_greedy(accept_greedy: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Chapter 09, exercise 4. Returns a verdict; raises AssertionError on wrong tokens."""
    for guesses, likeliest in (
        ([5, 6, 7], [5, 6, 8, 9]),
        ([5, 6, 7], [5, 6, 7, 9]),
        ([5, 6, 7], [4, 6, 7, 9]),
        ([5, 6, 7, 8], [5, 1, 7, 8, 2]),
        ([3, 3], [3, 4, 3]),
        ([], [9]),
    ):
        right = 0
        while right < len(guesses) and guesses[right] == likeliest[right]:
            right += 1
        expected = likeliest[: right + 1]
        given = (torch.tensor(row, dtype=torch.long) for row in (guesses, likeliest))
        found = ask(accept_greedy, *given)
        if not isinstance(found, Tensor) or found.dim() != 1:
            raise AssertionError(
                f"Expected a tensor of tokens, such as {expected}; found {found!r}."
            )
        if found.tolist() != expected:
            raise AssertionError(
                f"Guesses {guesses}, and the model finds likeliest {likeliest}: the next tokens "
                f"are {expected}, found {found.tolist()}. "
                + _why_accepted(found.tolist(), guesses, likeliest, right)
            )
    return "accept_greedy is right: as far as the guesses go, and one token more."


def _why_accepted(found: list, guesses: list, likeliest: list, right: int) -> str:
    if found == likeliest[:right]:
        return "The pass says one token more: what comes instead of, or after, the guesses."
    if found == [*likeliest[:right], likeliest[-1]]:
        return "After the last right guess, take the model's token of *that* place."
    if found and found[: right + 1] == guesses[: right + 1] and right < len(guesses):
        return f"Guess {right + 1} is wrong, and what the model writes there is {likeliest[right]}."
    if len(found) > right + 1:
        return "After a wrong guess, later ones were made for another text, even if they agree."
    return "likeliest[i] is what the model writes where guess i stands."


@verdict
def check_residual(residual: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Chapter 09, exercise 5. Returns a verdict; raises AssertionError on a wrong distribution."""
    torch.manual_seed(0)
    hand = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.2, 0.6, 0.2]])
    drawn = torch.rand(2, 4, 6, dtype=torch.float64).softmax(-1).unbind()
    nothing = torch.tensor([[0.5, 0.5]]), torch.zeros(1, 2)
    for p, q in (hand, drawn, nothing):
        found = ask(residual, p.clone(), q.clone())
        more = (p - q).clamp(min=0)
        expected = more / more.sum(-1, keepdim=True)
        if not isinstance(found, Tensor) or found.shape != p.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise AssertionError(f"Expected the shape of p and q, {tuple(p.shape)}; found {shape}.")
        if torch.allclose(found, expected, atol=1e-6):
            continue
        story = f"p = {_short(p)}, q = {_short(q)}: found {_short(found)}, expected "
        story += f"{_short(expected)}. "
        raise AssertionError(story + _why_residual(found, p, q, more))
    same = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    found = residual(same.clone(), same.clone())
    if not torch.equal(found, same):
        raise AssertionError(
            f"p and q the same: found {found.tolist()}. No guess is ever refused then, but a sum "
            "of 0 must not become NaN (the rows of a batch are computed together): return p."
        )
    return "residual is right: where p exceeds q, by how much, and the sum is 1."


def _short(p: Tensor) -> str:
    return "[" + ", ".join(f"{x:.2f}" for x in p.reshape(-1, p.size(-1))[0].tolist()) + "]"


def _why_residual(found: Tensor, p: Tensor, q: Tensor, more: Tensor) -> str:
    if torch.allclose(found, p, atol=1e-6):
        return (
            "That is p. But the guesses that were kept have had their share of p already: drawn "
            "from p, what q likes would come too often."
        )
    if torch.allclose(found, more, atol=1e-6):
        return "It does not sum to 1 yet."
    if (found < 0).any():
        return "A probability below 0: where q exceeds p, nothing is left."
    reverse = (q - p).clamp(min=0)
    if torch.allclose(found, reverse / reverse.sum(-1, keepdim=True), atol=1e-6):
        return "That is where q exceeds p. The model that has the last word is p."
    if torch.allclose(found, (p - q).abs() / (p - q).abs().sum(-1, keepdim=True), atol=1e-6):
        return "Where q exceeds p the guesses brought too much already: nothing is left there."
    if torch.allclose(found, more / more.sum(), atol=1e-6):
        return "Each row is a distribution of its own: the sum is over the last dimension."
    return "It is max(0, p - q), divided by its sum."


EXERCISES = {
    "09": {
        "1: who joins": (check_continuous, ("continuous",)),
        "2: the allocator": (check_block_pool, ("BlockPool",)),
        "3: copy on write": (check_reserve, ("BlockTables",)),
        "4: keep what is right": (check_accept_greedy, ("accept_greedy",)),
        "5: what is left of p": (check_residual, ("residual",)),
    },
}
progress = partial(checks.progress, exercises=EXERCISES)
